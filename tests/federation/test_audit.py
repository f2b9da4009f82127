"""The audit log: whatever is done to a line or to the end is found, with its place."""

import contextlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedrad.deployment.site.audit import AuditEntry, AuditLog
from fedrad.errors import RunError


def entry(round: int) -> AuditEntry:
    return AuditEntry(7, "ab12", "fedavg", 0, round, "fit", 100, 200, "cd34", "sent")


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "audit.jsonl")
    for round in (1, 2, 3, 4):
        log.append(entry(round))
    return log


def edit(log: AuditLog, change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(change(lines)))


def test_lines_written_by_several_openings_make_one_chain(log: AuditLog) -> None:
    """A site's process is restarted; the chain goes on where it was."""
    AuditLog(log.path).append(entry(5))
    assert [line["round"] for line in log.entries()] == [1, 2, 3, 4, 5]
    assert log.verify() == 5


def test_the_log_is_for_its_owner_alone(log: AuditLog) -> None:
    for path in log.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def rehashed(line: bytes, **changes: object) -> bytes:
    """What a careful forger writes: the line's own hash fits, the next line's does not."""
    from fedrad.deployment.site.audit import _hash, _text

    forged = json.loads(line) | changes
    forged["hash"] = _hash(forged)
    return _text(forged)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: [x[0], x[1].replace(b'"fit"', b'"fib"'), *x[2:]], "line 2: was changed after"),
        (lambda x: [x[0], x[1].replace(b": ", b":") + b"", x[2][:-2] + b'x"}\n', x[3]], "line 3"),
        (lambda x: [x[0], rehashed(x[1], bytes_out=1), *x[2:]], "line 3: does not follow from"),
        (lambda x: [x[0], *x[2:]], "line 2: says number 3; lines before it are missing"),
        (lambda x: x[1:], "line 1: says number 2; lines before it are missing"),
        (lambda x: [x[0], x[2], x[1], x[3]], "line 2: says number 3"),
        (lambda x: x[:3], "ends with line 3, 4 were written; the last lines are missing"),
        (lambda x: [], "ends with line 0, 4 were written"),
        (lambda x: [*x[:3], x[3][:-10]], "line 4: is cut off"),
        (lambda x: [*x[:3], rehashed(x[3], bytes_out=1)], "line 4: is not the one that was"),
        (lambda x: [x[0], b"\n", *x[1:]], "line 2: is no line of this log any more"),
        (lambda x: [x[0], x[1].replace(b"{", b"{ ", 1), *x[2:]], "line 2: was changed after"),
    ],
)
def test_a_changed_missing_or_cut_off_line_is_found(
    log: AuditLog, change: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    edit(log, change)
    with pytest.raises(RunError, match=told):
        log.verify()


def test_a_log_that_lost_its_end_takes_no_further_line(log: AuditLog) -> None:
    """Otherwise the next line would hide that lines are missing."""
    edit(log, lambda lines: lines[:3])
    with pytest.raises(RunError, match="the last lines are missing"):
        log.append(entry(5))
    log.path.unlink()
    with pytest.raises(RunError, match="ends with line 0, 4 were written"):
        log.verify()


def test_a_head_that_was_put_back_is_found(log: AuditLog) -> None:
    head = log.path.with_name("audit.head.json")
    old = head.read_bytes()
    log.append(entry(5))
    log.append(entry(6))
    head.write_bytes(old)
    with pytest.raises(RunError, match="knows 4 lines, the log has 6"):
        log.verify()


def test_a_crash_while_writing_costs_the_line_alone(log: AuditLog) -> None:
    """What a cut-off line tells of had not left: it is dropped, and the chain goes on."""
    with log.path.open("ab") as file:
        file.write(b'{"number":5,"time":"2')
    log.append(entry(5))
    assert log.verify() == 5


def test_a_crash_between_the_line_and_the_head_costs_nothing(log: AuditLog) -> None:
    head = log.path.with_name("audit.head.json")
    before = head.read_bytes()
    log.append(entry(5))
    head.write_bytes(before)
    assert log.verify() == 5
    log.append(entry(6))
    assert log.verify() == 6


def test_a_long_log_is_continued_from_its_end(tmp_path: Path) -> None:
    """The end is found by reading backwards, also past a line longer than the first look."""
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(entry(1))
    long = AuditEntry(7, "", "", 0, 0, "", 0, 0, "", "failed", reason="x" * 200_000)
    log.append(long)
    log.append(entry(2))
    assert log.verify() == 3


@contextlib.contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file may grow beyond a size: what a full disk looks like, and ends like one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [0, 1, 40, 10_000])
def test_a_disk_that_was_full_for_a_moment_accuses_nobody(log: AuditLog, room: int) -> None:
    """No room for a line, for a part of it, or for the head alone: the line is there or is not."""
    size = log.path.stat().st_size
    limit = min(size + room, size + 300)
    with full_at(limit):
        for _ in range(3):
            with contextlib.suppress(RunError):
                log.append(entry(5))
    with full_at(0), pytest.raises(RunError, match=r"audit\.jsonl could not be written"):
        log.append(entry(5))
    whole = log.verify()
    log.append(entry(6))
    assert log.verify() == whole + 1
    assert [line["number"] for line in log.entries()] == list(range(1, whole + 2))


def test_a_line_stays_only_if_the_head_knows_it(log: AuditLog) -> None:
    """With room for the line and none for the head, twice, the log was called a forgery."""
    # What stands where the head is written first: no file can be written there.
    beside = log.path.with_name(f".audit.head.json.{os.getpid()}.part")
    beside.mkdir()
    for _ in range(3):
        with pytest.raises(RunError, match="could not be written"):
            log.append(entry(5))
    assert log.verify() == 4
    beside.rmdir()
    log.append(entry(5))
    assert log.verify() == 5


def test_a_half_line_of_a_crash_is_dropped_with_a_line_that_says_so(log: AuditLog) -> None:
    """The head never knew it; a site that starts goes on, and `--verify` does not accuse."""
    with log.path.open("ab") as file:
        file.write(b'{"number":5,"time":"2026')
    assert (log.verify(), log.unfinished()) == (4, 24)
    assert "24 bytes" in log.mend()
    *_, last = log.entries()
    assert (last["number"], last["decision"], log.unfinished()) == (5, "mended", 0)
    assert log.mend() == "" and log.verify() == 5


def test_a_half_line_that_the_head_knows_is_tampering(log: AuditLog) -> None:
    edit(log, lambda lines: [*lines[:3], lines[3][:-10]])
    with pytest.raises(RunError, match="4 were written; the last lines are missing"):
        log.mend()


def test_a_log_and_head_that_are_both_gone_are_noticed(log: AuditLog) -> None:
    """Without a trace elsewhere a site that was wiped would look like a new one."""
    for path in (log.path, log.path.with_name("audit.head.json")):
        path.unlink()
    for look in (log.verify, lambda: log.append(entry(1))):
        with pytest.raises(
            RunError, match=r"both are gone, but answered\.json says that this site"
        ):
            look()
    log.restart("the site's own people began a new log")
    (first,) = log.entries()
    assert (first["decision"], first["number"]) == ("restarted", 1)
    with pytest.raises(RunError, match="is there; it is not begun anew"):
        log.restart("again")


@pytest.mark.parametrize("trace", ["privacy/ledger.jsonl", "memory/ab12/fedavg"])
def test_spend_and_memory_say_too_that_there_was_a_log(tmp_path: Path, trace: str) -> None:
    """Whoever takes the log away may well forget what else the site keeps."""
    (tmp_path / trace).mkdir(parents=True)
    with pytest.raises(RunError, match=r"both are gone, but (ledger\.jsonl|memory) says"):
        AuditLog(tmp_path / "audit.jsonl").verify()


@pytest.mark.deploy
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, mount")
def test_a_small_disk_that_is_really_full_accuses_nobody(tmp_path: Path) -> None:
    """A tmpfs of 64 kB, filled to the brim and then emptied, line by line."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        log = AuditLog(place / "audit.jsonl")
        log.append(entry(1))
        filler = place / "filler"
        for spare in range(0, 5):
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(b"x" * 1024):
                    pass
            os.truncate(filler, max(0, filler.stat().st_size - spare * 4096))
            full = 0
            for number in range(2, 200):
                try:
                    log.append(entry(number))
                except RunError as error:
                    full += "No space left on device" in str(error)
                    break
            assert full, "the disk was never full"
            filler.unlink()
            whole = log.verify()
            log.append(entry(999))
            assert log.verify() == whole + 1
    finally:
        subprocess.run(["umount", place], check=True)

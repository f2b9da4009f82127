"""The audit log: whatever is done to a line or to the end is found, with its place."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fedrad.errors import RunError
from fedrad.federation.hospital.audit import AuditLog, Entry


def entry(round: int) -> Entry:
    return Entry(7, "ab12", "fedavg", 0, round, "fit", 100, 200, "cd34", "sent")


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
    from fedrad.federation.hospital.audit import _hash, _text

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
    long = Entry(7, "", "", 0, 0, "", 0, 0, "", "failed", reason="x" * 200_000)
    log.append(long)
    log.append(entry(2))
    assert log.verify() == 3

"""A site's own record of every message: append-only lines, each bound to all before it.

Each line holds the hash of the line before it, and a file beside the log holds the number and hash
of the last one, so that a changed, missing or cut-off line is found. The chain shows tampering to
whoever kept an earlier hash; it cannot stop one who may rewrite both files.

A disk that was full, or a crash, accuses nobody: a line counts once the head knows it, and what
stands after that without its end was never told to anybody. Where both files are gone, what else
the site keeps says that it had answered messages.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path
from typing import Any

from fedrad.core.files import write_atomic
from fedrad.errors import RunError

__all__ = ["AuditEntry", "AuditLog"]

_START = "0" * 64
_HASH = "hash"


@dataclass(frozen=True)
class AuditEntry:
    """One message and what became of it.

    Args:
        run: Flower's number of the run.
        experiment: its digest; "" where a message named none that can be read.
        arm, seed, round, action: of the message.
        bytes_in, bytes_out: of arrays, numbers and settings, without framing.
        sent: SHA-256 of what left, "" when nothing did.
        decision: "sent", "refused" or "failed"; "opened" before the first frame of a stream, with
            the bytes of all its frames; "mended" and "restarted" are the log's own, of no message.
        reason: why it was not sent, as the coordinator was told; of a stream, what it is and was;
            of a description, which arms the site refuses, and why.
    """

    run: int
    experiment: str
    arm: str
    seed: int
    round: int
    action: str
    bytes_in: int
    bytes_out: int
    sent: str
    decision: str
    reason: str = ""


class AuditLog:
    """A hash-chained log; opening it checks all of it.

    Args:
        path: of the log, such as state/audit.jsonl.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> log = AuditLog(Path(folder.name) / "audit.jsonl")
    >>> log.append(AuditEntry(7, "ab12", "fedavg", 0, 1, "fit", 100, 100, "cd34", "sent"))
    >>> log.verify()
    1
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head = path.with_name(f"{path.stem}.head.json")
        self._begun = path.with_name("answered.json")

    def append(self, entry: AuditEntry) -> None:
        """Add a line; it is on the disk when this returns, or it is not there at all.

        Raises:
            RunError: the disk is full, or the log's end was tampered with.
        """
        with self._locked() as file:
            number, before = self._end(file)
            self._add(file, entry, number, before)

    def mend(self) -> str:
        """Drop a last line that has no end, and say so in a line; return what was done, or "".

        Only what the head does not know is dropped: nothing that it tells of had left.

        Raises:
            RunError: the disk is full, or the log was tampered with.
        """
        if not self.path.exists():
            return ""
        with self._locked() as file:
            cut = _cut_off(file)
            if not cut:
                return ""
            number, before = self._end(file)
            told = (
                f"a last line without its end ({cut} bytes) was dropped: the disk was full or the "
                "process ended while it was written; what it told of had not left"
            )
            self._add(file, _own("mended", told), number, before)
        return told

    def restart(self, reason: str) -> None:
        """Begin a new log where both files are gone; its first line says so.

        Raises:
            RunError: there is a log.
        """
        if self._head.exists() or (self.path.exists() and self.path.stat().st_size):
            raise RunError(f"{self.path.name}: is there; it is not begun anew")
        with self._locked() as file:
            self._add(file, _own("restarted", reason), 0, _START)

    def _add(self, file: BufferedRandom, entry: AuditEntry, number: int, before: str) -> None:
        line = {"number": number + 1, "time": _now(), **asdict(entry), "before": before}
        line[_HASH] = _hash(line)
        start = file.seek(0, os.SEEK_END)
        try:
            if not self._begun.exists():
                write_atomic(self._begun, json.dumps({"first line": line["time"]}).encode())
                self._begun.chmod(0o600)
            # Not by the buffer: it would try again to write what had no room.
            _write_all(file.fileno(), _text(line))
            os.fsync(file.fileno())
            self._keep_head(number + 1, line[_HASH])
        except (OSError, RunError) as error:
            # A line of what will not leave must not stay; to cut off needs no room.
            os.ftruncate(file.fileno(), start)
            told = error.strerror if isinstance(error, OSError) else error
            raise RunError(f"{self.path.name} could not be written ({told})") from None

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the lines, oldest first, each checked against the one before.

        Raises:
            RunError: a line was changed, is missing, or was cut off; with its number.
        """
        if not self.path.exists():
            self._check_end(0, _START)
            return
        number, before = 0, _START
        with self._locked() as file:
            known = self._read_head()["number"]
            for raw in file:
                if not raw.endswith(b"\n") and number >= known:
                    break  # never told to anybody; the site drops it when it starts
                number += 1
                line = self._line(raw, number, before)
                before = str(line[_HASH])
                yield line
            self._check_end(number, before)

    def verify(self) -> int:
        """Return the number of lines, all of which fit together.

        Raises:
            RunError: a line was changed, is missing, or was cut off; with its number.
        """
        return sum(1 for _ in self.entries())

    def _line(self, raw: bytes, number: int, before: str) -> dict[str, Any]:
        where = f"{self.path.name} line {number}"
        if not raw.endswith(b"\n"):
            raise RunError(f"{where}: is cut off")
        try:
            line = dict(json.loads(raw))
        except (ValueError, TypeError):
            raise RunError(f"{where}: is no line of this log any more") from None
        if line.get("number") != number:
            raise RunError(
                f"{where}: says number {line.get('number')}; lines before it are missing"
            )
        if line.get(_HASH) != _hash(line) or _text(line) != raw:
            raise RunError(f"{where}: was changed after it was written")
        if line["before"] != before:
            raise RunError(f"{where}: does not follow from line {number - 1}; a line was replaced")
        return line

    def unfinished(self) -> int:
        """Return the bytes of a last line without its end, or 0."""
        if not self.path.exists():
            return 0
        with self.path.open("r+b") as file:
            return _cut_off(file)

    def _check_end(self, number: int, last: str) -> None:
        head = self._read_head()
        if not number and not head["number"] and (known := self._answered()):
            raise RunError(
                f"{self.path.name}, {self._head.name}: both are gone, but {known} says that this "
                "site has answered messages; find out who took them away. fedrad site audit "
                "--restart begins a new log, and says so in it"
            )
        # A crash between a line and the head leaves the log one line ahead.
        if head["number"] > number:
            raise RunError(
                f"{self.path.name}: ends with line {number}, {head['number']} were written; "
                "the last lines are missing"
            )
        if head["number"] == number and head[_HASH] != last:
            raise RunError(f"{self.path.name} line {number}: is not the one that was written")
        if number > head["number"] + 1:
            raise RunError(
                f"{self._head.name}: knows {head['number']} lines, the log has {number}; "
                "it was replaced by an older one"
            )

    def _answered(self) -> str:
        """Return what of the site's other files says that there was a log, or ""."""
        folder = self.path.parent
        places = (self._begun, folder / "privacy" / "ledger.jsonl", folder / "memory")
        return next((place.name for place in places if place.exists()), "")

    def _end(self, file: BufferedRandom) -> tuple[int, str]:
        """Return the number and hash of the last line; a line that a crash cut off is dropped."""
        head = self._read_head()
        tail = _last_lines(file)
        if tail and not tail[-1].endswith(b"\n"):
            # It was never confirmed to anybody: what it tells of had not left yet.
            file.truncate(file.seek(0, os.SEEK_END) - len(tail.pop()))
        if not tail:
            self._check_end(0, _START)
            return 0, _START
        last = json.loads(tail[-1])
        number, own = int(last["number"]), str(last[_HASH])
        self._check_end(number, own)
        if number == head["number"] + 1 and head["number"] and last["before"] != head[_HASH]:
            raise RunError(f"{self.path.name} line {number}: does not follow from the one before")
        return number, own

    def _read_head(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._head.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {"number": 0, _HASH: _START}
        except (OSError, ValueError):
            raise RunError(
                f"{self._head.name}: is damaged; site audit --verify tells more"
            ) from None

    def _keep_head(self, number: int, last: str) -> None:
        write_atomic(self._head, json.dumps({"number": number, _HASH: last}).encode())
        self._head.chmod(0o600)

    @contextmanager
    def _locked(self) -> Iterator[BufferedRandom]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(place, "r+b") as file:
            # A reader in another process sees whole lines only.
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def _own(decision: str, reason: str) -> AuditEntry:
    return AuditEntry(0, "", "", 0, 0, "", 0, 0, "", decision, reason)


def _write_all(place: int, raw: bytes) -> None:
    while raw:
        raw = raw[os.write(place, raw) :]


def _cut_off(file: BufferedRandom) -> int:
    lines = _last_lines(file)
    return 0 if not lines or lines[-1].endswith(b"\n") else len(lines[-1])


def _last_lines(file: BufferedRandom) -> list[bytes]:
    """Return the end of a file in lines; the last two are whole."""
    size = file.seek(0, os.SEEK_END)
    span = 1 << 16
    while True:
        file.seek(max(0, size - span))
        lines = file.read().splitlines(keepends=True)
        if len(lines) > 2 or span >= size:
            return lines
        span *= 2


def _hash(line: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in line.items() if key != _HASH}
    return sha256(_text(rest)).hexdigest()


def _text(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

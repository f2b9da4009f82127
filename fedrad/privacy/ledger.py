"""A hospital's own ledger: every use of noise on its data, chained by hashes, on its own disk.

```
<state_dir>/privacy/ledger.jsonl   one line a use, each with the hash of the line before
<state_dir>/privacy/head.json      how many lines there are, and the last one's hash
```
A line is on the disk before the data are touched, so a crash can only count too much. A line that
was changed, removed or put in breaks the chain; the head tells a ledger that was cut short. Whoever
may write both files can write a new history: note the head's hash elsewhere to rule that out.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from fedrad.core.store import write_atomic
from fedrad.errors import PrivacyError, RunError
from fedrad.privacy.account import Charge
from fedrad.privacy.accountant import Spend, Use, compose_uses

__all__ = ["Ledger", "LedgerEntry", "Projection"]

_START = "0" * 64
_SLEW = 60.0  # seconds that a clock may be set back by its own synchronisation
_ASK = "training stops here until the hospital's operator has looked at its privacy ledger"


@dataclass(frozen=True)
class LedgerEntry:
    """One line: a charge, when it was booked, and its place in the chain."""

    number: int
    time: float
    charge: Charge
    previous: str
    hash: str


@dataclass(frozen=True)
class Projection:
    """What is spent, and what would be after one charge more."""

    before: Spend
    after: Spend


class Ledger:
    """The ledger in a folder.

    Args:
        folder: the site's `state_dir`; its `privacy` folder is made when something is booked.
        clock: seconds since 1970.

    Raises:
        PrivacyError: the chain is broken, or the ledger cannot be read.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder / "privacy"
        self._clock = clock
        self._read_bytes = 0
        self._entries: list[LedgerEntry] = []
        self._catch_up()

    @property
    def path(self) -> Path:
        """Return the ledger's file."""
        return self.folder / "ledger.jsonl"

    @property
    def head(self) -> str:
        """Return the hash of the last entry; worth noting outside this machine."""
        return self._entries[-1].hash if self._entries else _START

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries, oldest first."""
        return tuple(self._entries)

    def project(self, charge: Charge, delta: float) -> Projection:
        """Return what a patient would have spent after a charge; nothing is written.

        All columns count: a patient may be in every data set that was ever used.

        Args:
            charge: that is about to be made.
            delta: at which epsilon is told.
        """
        uses = [entry.charge.use for entry in self._entries]
        return Projection(compose_uses(uses, delta), compose_uses([*uses, charge.use], delta))

    def record(self, charge: Charge, allow: Callable[[], object] = lambda: None) -> LedgerEntry:
        """Book a charge and return its entry once it is on the disk.

        Args:
            charge: that is about to be made.
            allow: raises to refuse; called while no other process can book anything.

        Raises:
            PrivacyError: the disk is full, the clock was set back, or the chain is broken.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._catch_up()
                allow()
                entry = self._next(charge)
                self._append(entry)
        except (OSError, RunError) as error:
            reason = getattr(error, "strerror", None) or "the disk refuses"
            raise PrivacyError(
                f"privacy ledger: the entry could not be written ({reason}); training does not "
                "start; the hospital's operator can make room"
            ) from error
        return entry

    def verify(self) -> None:
        """Read everything anew and check every hash.

        Raises:
            PrivacyError: an entry was changed, removed or put in.
        """
        self._entries, self._read_bytes = [], 0
        self._catch_up()

    def _next(self, charge: Charge) -> LedgerEntry:
        now = self._clock()
        last = self._entries[-1].time if self._entries else now
        if now < last - _SLEW:
            raise PrivacyError(
                f"privacy ledger: the clock is {last - now:.0f} s behind the last entry; {_ASK}, "
                "or the clock is right"
            )
        number, at = len(self._entries) + 1, max(now, last)
        previous = self.head
        return LedgerEntry(number, at, charge, previous, _hash(number, at, charge, previous))

    def _append(self, entry: LedgerEntry) -> None:
        told = {**vars(entry), "charge": _plain(entry.charge)}
        line = json.dumps(told, separators=(",", ":"), sort_keys=True) + "\n"
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            # A line that a crash cut off is no entry: nothing was trained on it.
            file.truncate(self._read_bytes)
            file.seek(self._read_bytes)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        head = {"entries": entry.number, "hash": entry.hash}
        write_atomic(self.folder / "head.json", json.dumps(head).encode())
        self._entries.append(entry)
        self._read_bytes += len(line.encode())

    def _catch_up(self) -> None:
        """Read what was added since, and check it against the chain and the head."""
        try:
            text = self._tail()
            for line in text.split("\n")[:-1]:
                self._entries.append(self._checked(line))
                self._read_bytes += len(line.encode()) + 1
            self._check_head()
        except OSError as error:
            raise PrivacyError(
                f"privacy ledger: cannot be read ({error.strerror}); {_ASK}"
            ) from None

    def _tail(self) -> str:
        if not self.path.exists():
            return ""
        with open(self.path, "rb") as file:
            file.seek(self._read_bytes)
            return file.read().decode(errors="replace")

    def _checked(self, line: str) -> LedgerEntry:
        number = len(self._entries) + 1
        try:
            entry = _entry(json.loads(line))
        except (ValueError, KeyError, TypeError):
            raise PrivacyError(f"privacy ledger: entry {number} is no entry; {_ASK}") from None
        wanted = _hash(number, entry.time, entry.charge, self.head)
        if (entry.number, entry.previous, entry.hash) != (number, self.head, wanted):
            raise PrivacyError(
                f"privacy ledger: the chain is broken at entry {number}: it was changed, or others "
                f"were removed or put in; {_ASK}"
            )
        return entry

    def _check_head(self) -> None:
        path = self.folder / "head.json"
        if not path.exists():
            # A crash between the very first line and the head.
            known = len(self._entries) <= 1
        else:
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                count, last = int(told["entries"]), str(told["hash"])
            except (ValueError, KeyError, TypeError):
                count, last = -1, ""
            # One line more: a crash between a line and the head.
            known = len(self._entries) - count in (0, 1) and (
                count > 0 and self._entries[count - 1].hash == last
            )
        if not known:
            raise PrivacyError(
                f"privacy ledger: {len(self._entries)} entries do not fit head.json: some were "
                f"removed, or the head was; {_ASK}"
            )

    @contextmanager
    def _locked(self) -> Iterator[TextIO]:
        with open(self.folder / "lock", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def _hash(number: int, at: float, charge: Charge, previous: str) -> str:
    told = json.dumps([number, at, _plain(charge), previous], sort_keys=True)
    return sha256(told.encode()).hexdigest()


def _plain(charge: Charge) -> dict[str, Any]:
    # Not dataclasses.asdict: it copies deeply, which ten thousand entries would feel.
    return {**vars(charge), "use": vars(charge.use)}


def _entry(raw: dict[str, Any]) -> LedgerEntry:
    charge = Charge(**{**raw["charge"], "use": Use(**raw["charge"]["use"])})
    return LedgerEntry(raw["number"], raw["time"], charge, raw["previous"], raw["hash"])

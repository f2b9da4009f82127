"""A run's folder: what is kept so that nothing has to be computed twice.

```
runs/<experiment>/
    <arm>/seed-<n>/
        arm.yaml                         what this arm was run with, and on which data and kind of
                                         machine; anything else is refused
        rounds.jsonl                     one line a round
        server/round-000007.safetensors  the server's state, the last two rounds
        state.safetensors                the server's state after the last round
        evaluation.json, .safetensors    written last: this arm and seed are finished
    sites/<site>/<arm>/seed-<n>/         what each simulated hospital keeps on its own disk
    partition.csv                        which rows each site holds in each split
    concurrency.json                     how several sites were trained at once, where they were
    results.json  report.html
```
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from fedrad.core.state import Bundle
from fedrad.core.store import Versions, load, save_bundle, write_atomic
from fedrad.errors import RunError

__all__ = ["ArmFolder", "Claim", "Counts", "Evaluation", "RunFolder", "differing"]

Cell = dict[str, np.ndarray]
Counts = Mapping[str, Any]
_BETWEEN = "|"


@dataclass(frozen=True)
class Claim:
    r"""What an arm's numbers rest on: change any of it, and they are other numbers.

    Args:
        text: the arm's experiment, canonical.
        grounds: what else the bits depend on: digest of the data, kind of device, torch.

    >>> print(Claim("rounds: 3\n", {"data": "3fe2"}).mark(), end="")
    rounds: 3
    # data: 3fe2
    """

    text: str
    grounds: Mapping[str, str]

    def mark(self) -> str:
        """Return the content of `arm.yaml`."""
        return self.text + "".join(f"# {key}: {value}\n" for key, value in self.grounds.items())


@dataclass(frozen=True)
class Evaluation:
    """The test results of one arm and seed.

    Args:
        cells: (model, site) -> metric -> [1 + b] float64: observed, then bootstrap replicates.
        reasons: (model, site) -> metric -> why it is undefined there.
        counts: site -> "images" and "patients" of its test set, and for each output of the model
            the images with the label, "positives", and without it, "negatives".
        facts: plain values for the record (collapse, seconds, bytes, ...).
    """

    cells: Mapping[tuple[str, str], Cell]
    reasons: Mapping[tuple[str, str], Mapping[str, str]]
    counts: Mapping[str, Counts]
    facts: Mapping[str, Any] = field(default_factory=dict)


class ArmFolder:
    """The folder of one arm and seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = Versions(path / "server")

    @property
    def finished(self) -> bool:
        """Return whether the arm's evaluation is complete."""
        return (self.path / "evaluation.json").is_file()

    @property
    def mark(self) -> str | None:
        """Return what the folder was claimed for, None if it is new."""
        path = self.path / "arm.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def grounds(self, text: str) -> dict[str, str] | None:
        """Return on what data and machine an arm was begun with this text, None if with another."""
        mark = self.mark
        if mark is None or not mark.startswith(text):
            return None
        lines = mark[len(text) :].splitlines()
        if not all(line.startswith("# ") for line in lines):
            return None
        pairs = (line.removeprefix("# ").partition(": ") for line in lines)
        return {key: value for key, _, value in pairs}

    def check(self, claim: Claim) -> None:
        """Refuse a folder that was begun with something else.

        Raises:
            RunError: names the first line that differs.
        """
        before = self.mark
        if before is None:
            return
        known = self.grounds(claim.text)
        if known is None:
            change = _difference(before, claim.text)
        elif other := differing(known, claim.grounds):
            change = f"'{other}: {known[other]}' became '{other}: {claim.grounds[other]}'"
        else:
            return
        raise RunError(
            f"{self.path.parent.name}/{self.path.name} was begun with another experiment or "
            f"other data: {change}; choose another folder with --out, or remove this one"
        )

    def claim(self, claim: Claim) -> None:
        """Mark the folder as this arm's, or check that it already is.

        Raises:
            RunError: as `check`.
        """
        self.check(claim)
        if self.mark is None:
            write_atomic(self.path / "arm.yaml", claim.mark().encode())

    def rounds(self) -> list[dict[str, Any]]:
        """Return the recorded rounds, oldest first; of a round played twice, the last."""
        path = self.path / "rounds.jsonl"
        if not path.is_file():
            return []
        # A line cut off by a crash has no newline; its round is run again.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        found = {told["round"]: told for line in lines if line for told in [json.loads(line)]}
        return [found[number] for number in sorted(found)]

    def resume(self) -> tuple[int, Bundle]:
        """Return the last kept round and its state, or (0, {}); later lines are dropped."""
        kept = self.server.rounds()
        last = kept[-1] if kept else 0
        lines = [line for line in self.rounds() if line["round"] <= last]
        write_atomic(self.path / "rounds.jsonl", "".join(map(_line, lines)).encode())
        return last, (load(self.server.path(last)) if last else {})

    def keep(self, number: int, state: Bundle, line: Mapping[str, Any]) -> None:
        """Keep a round: its line first, then the state, which is what makes the round count.

        Raises:
            RunError: the disk is full; the state of the round before stands.
        """
        try:
            with open(self.path / "rounds.jsonl", "a", encoding="utf-8") as file:
                file.write(_line({"round": number, **line}))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"rounds.jsonl could not be written ({error.strerror})") from error
        self.server.write(number, state)

    def amend(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add to the line of a round what was learnt of it later; return the line."""
        lines = self.rounds()
        last = max(at for at, line in enumerate(lines) if line["round"] == number)
        lines[last] |= values
        write_atomic(self.path / "rounds.jsonl", "".join(map(_line, lines)).encode())
        return lines[last]

    def finish(self, state: Bundle, evaluation: Evaluation) -> None:
        """Write the final state and the evaluation; after this the arm and seed are finished."""
        save_bundle(self.path / "state.safetensors", state)
        arrays = {
            _BETWEEN.join(place): {metric: torch.from_numpy(v) for metric, v in cell.items()}
            for place, cell in evaluation.cells.items()
        }
        save_bundle(self.path / "evaluation.safetensors", arrays)
        told = {
            "counts": evaluation.counts,
            "facts": evaluation.facts,
            "reasons": {_BETWEEN.join(k): v for k, v in evaluation.reasons.items()},
        }
        write_atomic(self.path / "evaluation.json", json.dumps(told, indent=1).encode())

    def stop(self, reason: str) -> None:
        """Record why the arm could not go on; it is tried again by the next command."""
        write_atomic(self.path / "stopped.json", json.dumps({"reason": reason}).encode())

    def stopped(self) -> str | None:
        """Return why an unfinished arm could not go on, or None."""
        path = self.path / "stopped.json"
        if self.finished or not path.is_file():
            return None
        return str(json.loads(path.read_text(encoding="utf-8"))["reason"])

    def evaluation(self) -> Evaluation:
        """Read what `finish` wrote.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            told = json.loads((self.path / "evaluation.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path.name}: evaluation.json is missing or damaged") from error
        arrays = load(self.path / "evaluation.safetensors")
        return Evaluation(
            cells={
                _place(key): {metric: t.numpy() for metric, t in cell.items()}
                for key, cell in arrays.items()
            },
            reasons={_place(key): value for key, value in told["reasons"].items()},
            counts=told["counts"],
            facts=told["facts"],
        )


class RunFolder:
    """The folder of an experiment; arms and seeds lie side by side in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def arm(self, arm: str, seed: int) -> ArmFolder:
        """Return the folder of one arm and seed."""
        return ArmFolder(self.path / arm / f"seed-{seed}")

    def check(self, claims: Mapping[str, Claim], seeds: Iterable[int]) -> None:
        """Refuse a folder that holds an arm of this experiment, begun with something else.

        Raises:
            RunError: names the arm and the first line that differs.
        """
        for number in seeds:
            for arm, claim in claims.items():
                self.arm(arm, number).check(claim)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from playing in this folder; the system lets go of it at a crash.

        Raises:
            RunError: another process plays here.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process plays in {self.path.name}: wait for it, or choose another "
                "folder with --out"
            ) from None
        except OSError as error:
            raise RunError(f"{self.path.name} cannot be written ({error.strerror})") from error
        try:
            yield
        finally:
            lock.release()

    def site(self, site: str) -> Path:
        """Return where a simulated site keeps its memory."""
        return self.path / "sites" / site

    def write(self, name: str, content: str) -> Path:
        """Write a text file at the top of the folder, whole or not at all."""
        write_atomic(self.path / name, content.encode())
        return self.path / name


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """Return the first ground that both claims know and that is not the same, if any.

    >>> differing({"data": "3fe2"}, {}), differing({"data": "3fe2"}, {"data": "77ab"})
    (None, 'data')
    """
    return next((key for key in one if other.get(key, one[key]) != one[key]), None)


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"


def _place(key: str) -> tuple[str, str]:
    model, _, site = key.partition(_BETWEEN)
    return model, site


def _difference(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    pairs = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
    if not pairs:
        return f"{len(old)} lines became {len(new)}"
    return f"'{pairs[0][0].strip()}' became '{pairs[0][1].strip()}'"

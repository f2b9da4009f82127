"""A run's folder: what is kept so that nothing has to be computed twice.

```
runs/<experiment>/
    <arm>/seed-<n>/
        arm.yaml                         what this arm was run with; another text is refused
        rounds.jsonl                     one line a round
        server/round-000007.safetensors  the server's state, the last two rounds
        state.safetensors                the server's state after the last round
        evaluation.json, .safetensors    written last: this arm and seed are finished
    sites/<site>/<arm>/seed-<n>/         what each simulated hospital keeps on its own disk
    partition.csv                        which rows each site holds in each split
    results.json  report.html
```
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedrad.core.state import Bundle
from fedrad.core.store import Versions, load, save_bundle, write_atomic
from fedrad.errors import RunError

__all__ = ["ArmFolder", "Evaluation", "RunFolder"]

Cell = dict[str, np.ndarray]
_BETWEEN = "|"


@dataclass(frozen=True)
class Evaluation:
    """The test results of one arm and seed.

    Args:
        cells: (model, site) -> metric -> [1 + b] float64: observed, then bootstrap replicates.
        reasons: (model, site) -> metric -> why it is undefined there.
        counts: site -> images, patients, positives, negatives of its test set.
        facts: plain values for the record (collapse, seconds, bytes, ...).
    """

    cells: Mapping[tuple[str, str], Cell]
    reasons: Mapping[tuple[str, str], Mapping[str, str]]
    counts: Mapping[str, Mapping[str, int]]
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

    def claim(self, text: str) -> None:
        """Mark the folder as this arm's, or check that it already is.

        Raises:
            RunError: the folder was begun with another text; names the first line that differs.
        """
        mark = self.path / "arm.yaml"
        if not mark.is_file():
            write_atomic(mark, text.encode())
            return
        before = mark.read_text(encoding="utf-8")
        if before != text:
            raise RunError(
                f"{self.path.parent.name}/{self.path.name} was begun with another experiment: "
                f"{_difference(before, text)}; choose another folder with --out, or remove this one"
            )

    def rounds(self) -> list[dict[str, Any]]:
        """Return the recorded rounds, oldest first."""
        path = self.path / "rounds.jsonl"
        if not path.is_file():
            return []
        # A line cut off by a crash has no newline; its round is run again.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]

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

    def site(self, site: str) -> Path:
        """Return where a simulated site keeps its memory."""
        return self.path / "sites" / site

    def write(self, name: str, content: str) -> Path:
        """Write a text file at the top of the folder, whole or not at all."""
        write_atomic(self.path / name, content.encode())
        return self.path / name


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

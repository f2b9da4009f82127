"""A run's folder: what is kept so that nothing has to be computed twice.

```
runs/<experiment>/
    <arm>/seed-<n>/
        arm.yaml                         what this arm was begun with, and on which data and kind
                                         of machine; what makes other weights is refused
        rounds.jsonl                     one line a round
        server/round-000007.safetensors  the server's state, the last two rounds
        state.safetensors                the server's state after the last round
        evaluated.yaml                   with which metrics, sites and data it was evaluated
        evaluation.json, .safetensors    written last: this arm and seed are finished
    sites/<site>/<arm>/seed-<n>/         what each simulated hospital keeps on its own disk
    partition.csv                        which rows each site holds in each split
    concurrency.json                     how several sites were trained at once, where they were
    results.json  report.html
```
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from fedrad.core.damage import Kinds, json_lines, reading
from fedrad.core.provenance import Provenance, training_change
from fedrad.core.state import Bundle
from fedrad.core.store import Versions, load_bundle, save_bundle, write_atomic
from fedrad.errors import RunError

__all__ = ["LEFT_OUT", "ArmFolder", "Counts", "Evaluation", "RunFolder", "sites_with_own_model"]

LEFT_OUT = "left out"
"""How the reason begins of an arm that was never to be run, and so did not stop."""
StoredMetrics = dict[str, np.ndarray]
Counts = Mapping[str, Any]
_BETWEEN = "|"
_POOLED = "pooled"
_BEGIN_ANEW = "remove this arm's folder, and the same command trains it anew"
_MEND_RECORD = (
    "the arm's weights are not touched, but bytes, steps and curves would be wrong: put back a "
    f"copy of the file, or {_BEGIN_ANEW}"
)
_EVALUATE_ANEW = "remove that file, and the same command evaluates the arm again, without training"
_ROUNDS = re.compile(r"^rounds: (\d+)$", re.MULTILINE)
_NUMBER = (int, float)
_ROUND: Kinds = {
    "round": int,
    "seconds": _NUMBER,
    "bytes_down": _NUMBER,
    "bytes_up": _NUMBER,
    "steps": _NUMBER,
    "missing": dict,
    "validation": dict,
}
"""What every line of rounds.jsonl has."""


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

    cells: Mapping[tuple[str, str], StoredMetrics]
    reasons: Mapping[tuple[str, str], Mapping[str, str]]
    counts: Mapping[str, Counts]
    facts: Mapping[str, Any] = field(default_factory=dict)


def sites_with_own_model(evaluation: Evaluation) -> set[str]:
    """Return the sites that had a model of their own on their own test set.

    >>> cells = {("personal:nord", "nord"): {"auroc": np.ones(1)}, ("personal:ost", "ost"): {}}
    >>> sites_with_own_model(Evaluation(cells, {}, {}))
    {'nord'}
    """
    return {
        site
        for (model, site), cell in evaluation.cells.items()
        if cell and site != _POOLED and model == f"personal:{site}"
    }


class ArmFolder:
    """The folder of one arm and seed.

    Args:
        path: of the folder.
        text: of the arm's experiment; an evaluation that was made for another one does not count.
    """

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self._text = text
        self.server = Versions(path / "server")

    @property
    def finished(self) -> bool:
        """Return whether the arm's evaluation is complete, and the one that is wanted."""
        if not (self.path / "evaluation.json").is_file():
            return False
        claim = self.evaluated_as
        return self._text is None or (claim is not None and claim.text == self._text)

    @property
    def trained(self) -> bool:
        """Return whether the arm was evaluated, with whatever metrics and test sites."""
        return (self.path / "evaluation.json").is_file()

    @property
    def begun_as(self) -> Provenance | None:
        """Return what the arm was begun with, None if it is new.

        Raises:
            RunError: the file is damaged.
        """
        return self._claim("arm.yaml")

    @property
    def evaluated_as(self) -> Provenance | None:
        """Return what the evaluation was made with; of older folders, what the arm was begun with.

        Raises:
            RunError: the file is damaged.
        """
        return self._claim("evaluated.yaml") or self.begun_as

    def _claim(self, name: str) -> Provenance | None:
        path = self.path / name
        if not path.is_file():
            return None
        with reading(path, self.name, _BEGIN_ANEW):
            claim = Provenance.read(path.read_text(encoding="utf-8"))
            if not claim.text.strip():
                raise ValueError("it is empty")
        return claim

    @property
    def name(self) -> str:
        """Return the arm and seed, as messages name them."""
        return f"{self.path.parent.name}/{self.path.name}"

    def check(self, claim: Provenance) -> None:
        """Refuse a folder that was begun with something that makes other weights.

        Raises:
            RunError: names the first line that differs.
        """
        before = self.begun_as
        if before is not None and (change := training_change(before, claim)):
            raise RunError(
                f"{self.name} was begun with another experiment or other data: {change}; choose "
                "another folder with --out, or remove this one"
            )

    def claim(self, claim: Provenance) -> None:
        """Mark the folder as this arm's, or check that it already is.

        Raises:
            RunError: as `check`.
        """
        self.check(claim)
        if self.begun_as is None:
            write_atomic(self.path / "arm.yaml", claim.mark().encode())

    def evaluated(self, claim: Provenance) -> bool:
        """Return whether the arm is finished, evaluated with these metrics, sites and data."""
        known = self.evaluated_as if self.trained else None
        return known is not None and known.holds_for(claim)

    def rounds(self) -> list[dict[str, Any]]:
        """Return the recorded rounds, oldest first; of a round run twice, the last.

        Raises:
            RunError: a line is damaged, or an arm that was trained to its end lacks some.
        """
        lines, damaged = self._lines()
        if damaged is not None:
            raise self._damaged_at(damaged)
        if self.trained and (wanted := self._planned()) is not None and len(lines) < wanted:
            raise RunError(
                f"{self.name}: rounds.jsonl tells of {len(lines)} of the arm's {wanted} rounds; "
                f"{_MEND_RECORD}"
            )
        return lines

    def _planned(self) -> int | None:
        """Return how many rounds the arm was begun with, None where its mark does not say."""
        begun = self.begun_as
        found = begun and _ROUNDS.search(begun.text)
        return int(found[1]) if found else None

    def _lines(self) -> tuple[list[dict[str, Any]], int | None]:
        path = self.path / "rounds.jsonl"
        if not path.is_file():
            return [], None
        with reading(path, self.name, _BEGIN_ANEW):
            lines, damaged = json_lines(path, _ROUND)
        found = {line["round"]: line for line in lines}
        return [found[number] for number in sorted(found)], damaged

    def _damaged_at(self, number: int) -> RunError:
        return RunError(f"{self.name}: line {number} of rounds.jsonl is damaged; {_MEND_RECORD}")

    def resume(self) -> tuple[int, Bundle]:
        """Return the last kept round and its state, or (0, {}); later lines are dropped.

        Where the record of a round is damaged whose beginning is still kept, it is run again.

        Raises:
            RunError: another line of the record is damaged, or the state.
        """
        lines, damaged = self._lines()
        kept = self.server.rounds()
        last = kept[-1] if kept else 0
        if damaged is not None:
            last = lines[-1]["round"] if lines else 0
            if last and last not in kept:
                raise self._damaged_at(damaged)
        lines = [line for line in lines if line["round"] <= last]
        path = self.server.path(last)
        try:
            state = load_bundle(path) if last else {}
        except RunError as error:
            raise RunError(
                f"{self.name}: server/{error}; delete that file, and the same command goes on from "
                "the round before"
            ) from error
        write_atomic(self.path / "rounds.jsonl", "".join(map(_line, lines)).encode())
        return last, state

    def final(self) -> Bundle | None:
        """Return the state after the last round of an arm that was evaluated, else None.

        Raises:
            RunError: it is missing or damaged.
        """
        if not self.trained:
            return None
        try:
            return load_bundle(self.path / "state.safetensors")
        except RunError as error:
            raise RunError(f"{self.name}: {error}; {_BEGIN_ANEW}") from error

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

    def finish(self, state: Bundle, evaluation: Evaluation, claim: Provenance) -> None:
        """Write the final state and the evaluation; after this the arm and seed are finished.

        Args:
            state: after the last round.
            evaluation: of that state.
            claim: what the evaluation was made with.
        """
        # An evaluation that is replaced ends here: a crash must not leave halves of two.
        (self.path / "evaluation.json").unlink(missing_ok=True)
        write_atomic(self.path / "evaluated.yaml", claim.mark().encode())
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
        with reading(path, self.name, "remove that file"):
            return str(json.loads(path.read_text(encoding="utf-8"))["reason"])

    def evaluation(self) -> Evaluation:
        """Read what `finish` wrote.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.path / "evaluation.json"
        with reading(path, self.name, _EVALUATE_ANEW):
            told = json.loads(path.read_text(encoding="utf-8"))
            reasons = {_place(key): dict(value) for key, value in told["reasons"].items()}
            counts, facts = dict(told["counts"]), dict(told["facts"])
        try:
            arrays = load_bundle(self.path / "evaluation.safetensors")
        except RunError as error:
            cure = _EVALUATE_ANEW.replace("that file", "evaluation.json beside it")
            raise RunError(f"{self.name}: {error}; {cure}") from error
        cells = {
            _place(key): {metric: t.numpy() for metric, t in cell.items()}
            for key, cell in arrays.items()
        }
        return Evaluation(cells, reasons, counts, facts)


class RunFolder:
    """The folder of an experiment; arms and seeds lie side by side in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def arm(self, arm: str, seed: int, text: str | None = None) -> ArmFolder:
        """Return the folder of one arm and seed, finished if it was evaluated for this text."""
        return ArmFolder(self.path / arm / f"seed-{seed}", text)

    def check(self, claims: Mapping[str, Provenance], seeds: Iterable[int]) -> None:
        """Refuse a folder that holds an arm of this experiment, begun with something else.

        Raises:
            RunError: names the arm and the first line that differs.
        """
        for number in seeds:
            for arm, claim in claims.items():
                self.arm(arm, number).check(claim)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running in this folder; the system lets go of it at a crash.

        Raises:
            RunError: another process runs here.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process runs in {self.path.name}: wait for it, or choose another "
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


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"


def _place(key: str) -> tuple[str, str]:
    model, _, site = key.partition(_BETWEEN)
    return model, site

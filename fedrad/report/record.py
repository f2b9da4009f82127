"""What the rounds of an arm took, from its folders."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedrad.core.names import listed
from fedrad.report.participation import participation_of
from fedrad.runs import LEFT_OUT, ArmFolder

__all__ = ["Folders", "record_of", "seeds_told", "time_of", "unfinished"]

Folders = Mapping[int, ArmFolder]
"""Seed -> the folder of the arm's run."""
_NOT_RUN = "not run yet"
_OUTDATED = "was evaluated with other metrics or test sites, and is not yet again"


def unfinished(folders: Folders) -> str:
    """Return why an arm has not finished all of its seeds."""
    left = {seed: _reason(one) for seed, one in folders.items() if not one.finished}
    stopped = {seed: reason for seed, reason in left.items() if reason}
    for seed, reason in stopped.items():
        return reason if len(left) == len(folders) else f"seed {seed}: {reason}"
    return _NOT_RUN if len(left) == len(folders) else f"{seeds_told(left)} {_NOT_RUN}"


def _reason(folder: ArmFolder) -> str | None:
    return folder.stopped() or (_OUTDATED if folder.trained else None)


def seeds_told(seeds: Iterable[int]) -> str:
    """Return seeds in words.

    >>> seeds_told([0]), seeds_told([1, 2])
    ('seed 0', 'seeds 1, 2')
    """
    names = [str(seed) for seed in seeds]
    return f"seed{'s' * (len(names) > 1)} {listed(names)}"


def record_of(folders: Folders, metric: str, *, pools: bool) -> dict[str, Any]:
    """Return an arm's status, bytes, seconds, steps, absent sites and learning curves.

    Bytes, seconds and steps are means over the finished seeds. `seconds` is how long the rounds
    lasted, `training_seconds` how long all workers together were in training steps, None where no
    worker tells; the first depends on how many workers an arm had, and what else was run.

    Args:
        folders: the arm's, by seed.
        metric: whose values make the curves, beside the loss.
        pools: whether the arm moves the images themselves, so that model bytes say nothing.
    """
    rounds = [one.rounds() for one in folders.values() if one.finished]
    done = [line for lines in rounds for line in lines]
    status = _status(folders)
    return {
        "status": status,
        "reason": None if status == "finished" else unfinished(folders),
        # Pooling moves the images themselves, which no count of model bytes stands for.
        "bytes": {
            way: None if pools else _per_seed(done, f"bytes_{way}", rounds)
            for way in ("down", "up")
        },
        "seconds": _per_seed(done, "seconds", rounds),
        "training_seconds": _training(done, rounds),
        "steps_taken": _per_seed(done, "steps", rounds),
        "efficiency": _efficiency(done),
        "efficiency_by_seed": {
            str(seed): _efficiency(one.rounds()) for seed, one in folders.items() if one.finished
        },
        "missing_sites": _missing(done),
        "participation": participation_of(
            {seed: one.rounds() for seed, one in folders.items() if one.finished}
        ),
        "curves": _curves(rounds, metric),
    }


def _status(folders: Folders) -> str:
    done = sum(one.finished for one in folders.values())
    if done == len(folders):
        return "finished"
    reasons = [reason for one in folders.values() if (reason := one.stopped())]
    if reasons:
        return LEFT_OUT if all(why.startswith(LEFT_OUT) for why in reasons) else "stopped"
    return "incomplete" if done else "missing"


def time_of(arms: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return by which time arms can be compared, and what it is called.

    >>> time_of([{"seconds": 9.0, "training_seconds": 14.5}])
    ('training_seconds', 'training time')
    >>> time_of([{"seconds": 9.0, "training_seconds": None}])
    ('seconds', 'time')
    """
    timed = [arm for arm in arms if arm.get("seconds") is not None]
    if timed and all(arm.get("training_seconds") is not None for arm in timed):
        return "training_seconds", "training time"
    return "seconds", "time"


def _per_seed(
    lines: Sequence[Mapping[str, Any]], key: str, rounds: Sequence[object]
) -> float | None:
    return sum(line[key] for line in lines) / len(rounds) if rounds else None


def _efficiency(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of the workers' time that was spent in training steps, if known."""
    known = [line for line in lines if "efficiency" in line]
    total = sum(line["worker_seconds"] for line in known)
    spent = sum(line["efficiency"] * line["worker_seconds"] for line in known)
    return round(spent / total, 4) if total else None


def _training(lines: Sequence[Mapping[str, Any]], rounds: Sequence[object]) -> float | None:
    known = [line["efficiency"] * line["worker_seconds"] for line in lines if "efficiency" in line]
    return round(sum(known) / len(rounds), 4) if known and len(known) == len(lines) else None


def _missing(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return site -> rounds that went on without it."""
    return dict(sorted(Counter(site for line in lines for site in line["missing"]).items()))


def _curves(rounds: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> dict[str, Any]:
    """Return site -> rounds, and the mean over seeds of metric and loss on validation images."""
    points: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for line in (line for lines in rounds for line in lines):
        for site, values in line["validation"].items():
            points.setdefault(site, {}).setdefault(line["round"], []).append(values)
    return {
        site: {
            "round": sorted(by_round),
            "value": [_average(by_round[n], metric) for n in sorted(by_round)],
            "loss": [_average(by_round[n], "loss") for n in sorted(by_round)],
        }
        for site, by_round in sorted(points.items())
    }


def _average(values: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [one[key] for one in values if one.get(key) is not None]
    return float(np.mean(known)) if known else None

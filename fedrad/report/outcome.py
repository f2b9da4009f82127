"""Whether a command did what it was asked, and what is left of the experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrad.config import Experiment
from fedrad.core.names import by_reason, listed
from fedrad.report.record import seeds_told
from fedrad.runs import ArmFolder, RunFolder

__all__ = ["Outcome", "outcome_of"]


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Args:
        finished: all that was asked for is.
        told: sentences for the terminal; none where nothing is left of the experiment.
    """

    finished: bool
    told: Sequence[str]


def outcome_of(
    folder: RunFolder, experiment: Experiment, arms: Sequence[str], seeds: Sequence[int]
) -> Outcome:
    """Return what came of a command that was asked for some arms and seeds.

    Args:
        folder: where they were run.
        experiment: the whole of it.
        arms: that were asked for.
        seeds: that were asked for.
    """
    failed = {
        f"{arm} {seeds_told([seed])}": one.stopped() or "not run to its end"
        for arm in arms
        for seed in seeds
        for one in [_folder(folder, experiment, arm, seed)]
        if not one.finished
    }
    if failed:
        return Outcome(False, [_failed(failed)])
    left = {
        arm: [
            seed for seed in experiment.seeds if not _folder(folder, experiment, arm, seed).finished
        ]
        for arm in experiment.arm_names
    }
    rest = [f"{arm} {seeds_told(of)}" for arm, of in left.items() if of]
    if not rest:
        return Outcome(True, [])
    asked = f"{listed(arms)} with {seeds_told(seeds)}"
    return Outcome(
        True,
        [
            f"All that was asked for is finished: {asked}. Left of the experiment: {listed(rest)}; "
            "the same command without --arm and --seed runs what is left."
        ],
    )


def _folder(folder: RunFolder, experiment: Experiment, arm: str, seed: int) -> ArmFolder:
    return folder.arm(arm, seed, experiment.arm(arm).text())


def _failed(failed: Mapping[str, str]) -> str:
    return (
        f"Not finished: {by_reason(failed)}. The same command tries again from the last finished "
        "round; an experiment that is changed needs another folder, with --out."
    )

"""What several commands do with an experiment's file and the options beside it."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fedrad.config import Experiment
    from fedrad.data.sites import Federation
    from fedrad.runs import RunFolder

__all__ = ["end", "federation_for", "read", "selected"]


def read(file: Path, sets: list[str]) -> "Experiment":
    """Return a file's experiment, before torch is imported: a typing error is told at once."""
    from fedrad.config import load_experiment

    return load_experiment(file, sets)


def federation_for(
    experiment: "Experiment",
    data_root: Path | None,
    device: str = "cpu",
    played: Collection[str] = (),
) -> "Federation":
    """Return an experiment's sites, once its arms are known to fit together.

    Args:
        experiment: the whole of it.
        data_root: what relative paths of data are under; None is the current folder.
        device: where models will live.
        played: the arms that are asked for; none named is all.

    Raises:
        ConfigError: an arm does not fit, or the data do not.
        MissingError: the device or data are not there.
    """
    from fedrad.assemble import check_arms, check_privacy, device_of
    from fedrad.data.sites import federation_of

    device_of(device)
    check_arms(experiment, played)
    federation = federation_of(experiment, data_root or Path())
    check_privacy(experiment, federation)
    return federation


def selected(
    experiment: "Experiment", arms: list[str] | None, seeds: list[int] | None
) -> tuple[list[str], list[int]]:
    """Return the arms and seeds that are asked for, in the experiment's order; none named is all.

    Raises:
        ConfigError: one is not of the experiment.
    """
    from fedrad.errors import ConfigError

    for arm in arms or []:
        experiment.arm(arm)
    for seed in seeds or []:
        if seed not in experiment.seeds:
            known = ", ".join(map(str, experiment.seeds))
            raise ConfigError(f"--seed {seed} is not one of the experiment's seeds {known}")
    return (
        [name for name in experiment.arm_names if not arms or name in arms],
        [number for number in experiment.seeds if not seeds or number in seeds],
    )


def end(
    console: "Console",
    folder: "RunFolder",
    experiment: "Experiment",
    arms: list[str],
    seeds: list[int],
) -> None:
    """Say whether what was asked for is finished, and what is left of the experiment.

    Raises:
        typer.Exit: with code 1, where an arm and seed that was asked for is not finished.
    """
    from rich.text import Text

    from fedrad.report.outcome import outcome_of
    from fedrad.report.wording import plain

    outcome = outcome_of(folder, experiment, arms, seeds)
    for sentence in outcome.told:
        console.print(Text(plain(sentence)), highlight=False)
    if not outcome.finished:
        raise typer.Exit(1)

"""What several commands do with an experiment's file and the options beside it."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fedrad.config import Experiment
    from fedrad.data.checks.oddities import Oddity
    from fedrad.data.sites import Federation
    from fedrad.runs import RunFolder

__all__ = ["end", "federation_for", "read_experiment", "selected_arms"]


def read_experiment(file: Path, sets: list[str]) -> "Experiment":
    """Return a file's experiment, before torch is imported: a typing error is told at once."""
    from fedrad.config import load_experiment

    return load_experiment(file, sets)


def federation_for(
    experiment: "Experiment",
    data_root: Path | None,
    device: str = "cpu",
    asked_for: Collection[str] = (),
) -> "Federation":
    """Return an experiment's sites, once its arms are known to fit together.

    Args:
        experiment: the whole of it.
        data_root: what relative paths of data are under; None is the current folder.
        device: where models will live.
        asked_for: the arms that are asked for; none named is all.

    Raises:
        ConfigError: an arm does not fit, or the data do not.
        MissingError: the device or data are not there.
    """
    from fedrad.assemble import check_arms, check_privacy, device_of
    from fedrad.data.checks.oddities import unaccepted
    from fedrad.data.sites import federation_of

    device_of(device)
    check_arms(experiment, asked_for)
    federation = federation_of(experiment, data_root or Path())
    check_privacy(experiment, federation)
    odd = unaccepted(_last_batches(experiment, federation), experiment.accept)
    return replace(federation, oddities=(*federation.oddities, *odd))


def _last_batches(experiment: "Experiment", federation: "Federation") -> "list[Oddity]":
    """Return last batches of one image that look odd with batch norm, each site's once.

    Raises:
        ConfigError: batch norm cannot take one; names the arm and the site.
    """
    from fedrad.assemble import algorithm_of, check_last_batch, steps_per_round
    from fedrad.config import POOLED
    from fedrad.errors import ConfigError

    images = {name: federation.sites[name].images("train") for name in federation.training}
    found = {}
    for name in experiment.arm_names:
        arm = experiment.arm(name)
        pooled = {POOLED: sum(images.values())}
        for site, number in (pooled if algorithm_of(arm).pooled else images).items():
            try:
                odd = check_last_batch(arm, site, number, steps_per_round(arm.local, number))
            except ConfigError as error:
                raise ConfigError(f"arms.{name}: {error}") from None
            if odd is not None:
                found[site] = odd
    return list(found.values())


def selected_arms(
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
            raise ConfigError(
                f"--seed {seed} is not one of the experiment's seeds {known}; "
                f"--set 'seeds=[{known}, {seed}]' adds it"
            )
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

    from fedrad.report.formatting import one_line
    from fedrad.report.outcome import outcome_of

    outcome = outcome_of(folder, experiment, arms, seeds)
    for sentence in outcome.told:
        console.print(Text(one_line(sentence)), highlight=False)
    if not outcome.finished:
        raise typer.Exit(1)

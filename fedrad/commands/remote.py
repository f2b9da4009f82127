"""`fedrad run --on`: an experiment across hospitals, from the coordinator's machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fedrad.commands.experiments import end

if TYPE_CHECKING:
    from fedrad.config import Experiment

__all__ = ["run_on_federation"]


def run_on_federation(
    kit: Path,
    experiment: "Experiment",
    arms: list[str],
    seeds: list[int],
    out: Path | None,
    *,
    command: str,
    device: str = "cpu",
) -> None:
    """Run an experiment on a coordinator's sites; print and write what came of it.

    The device is the coordinator's own, for networks that are cut; each site's file names its.
    """
    from rich.console import Console

    from fedrad.assemble import device_of
    from fedrad.deployment.coordinator.kit import CoordinatorKit
    from fedrad.deployment.coordinator.remote import left_out, run_on
    from fedrad.report.progress import make_progress
    from fedrad.report.results import write_results
    from fedrad.report.tables import results_tables
    from fedrad.rounds.arm_rounds import RunSpec
    from fedrad.runs import RunFolder

    console = Console()
    coordinator = CoordinatorKit.load(kit)
    folder = RunFolder(out or Path("runs") / experiment.name)
    out_of_reach = left_out(experiment, arms)
    for name, reason in out_of_reach.items():
        typer.echo(f"{name}: {reason}", err=True)
        for seed in seeds:
            folder.arm(name, seed).stop(reason)
    left = [name for name in arms if name not in out_of_reach]
    with make_progress(console) as progress:
        spec = RunSpec(experiment, left, seeds, experiment.held_out_sites, folder, progress)
        federation = run_on(spec, coordinator, device_of(device))
    results = write_results(folder, experiment, federation, command=command, device=device)
    for renderable in results_tables(results):
        console.print(renderable)
    console.print(f"\nReport: {folder.path / 'report.html'}", soft_wrap=True, highlight=False)
    end(console, folder, experiment, left, seeds)

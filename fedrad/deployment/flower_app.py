"""Flower's two components, as `flwr run` and Flower's own simulation load them.

`flwr run . --run-config 'experiment="/path/to/experiment.yaml" out="/path/to/folder"'` runs an
experiment on Flower's simulation; node i of n is the i-th of the experiment's sites in sorted
order, so it needs as many nodes as the experiment has sites. Data lie under `FEDRAD_DATA`.
"""

import os
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrad.assemble import algorithm_of
from fedrad.config import Experiment, from_text, load_experiment
from fedrad.data.sites import Federation, federation_of
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import client_app
from fedrad.rounds.progress import LoggedProgress
from fedrad.rounds.server import server_app
from fedrad.runs import RunFolder

__all__ = ["client", "server"]


class _FromText:
    """The source of a process that reads its data when the first message comes."""

    def federation(self, experiment: Experiment) -> Federation:
        """Return the experiment's sites, read once."""
        return _read(experiment.text())


@lru_cache(maxsize=2)
def _read(text: str) -> Federation:
    return federation_of(from_text(text), Path(os.environ.get("FEDRAD_DATA", ".")))


client = client_app(_FromText(), torch.device("cpu"))
server = ServerApp()


@server.main()
def run_from_flower(grid: Grid, context: Context) -> None:
    """Run the experiment that the run's configuration names."""
    named = str(context.run_config.get("experiment", ""))
    experiment = from_text(named) if "\n" in named else load_experiment(Path(named))
    arms = [name for name in experiment.arm_names if not algorithm_of(experiment.arm(name)).pooled]
    folder = RunFolder(Path(str(context.run_config.get("out") or "runs")) / experiment.name)
    progress = LoggedProgress()
    for name in sorted(set(experiment.arm_names) - set(arms)):
        progress.note(f"{name} is left out: it pools the data, which only fedrad run can simulate")
    held_out = experiment.held_out_sites
    spec = RunSpec(experiment, arms, experiment.seeds, held_out, folder, progress)
    server_app(spec)(grid, context)

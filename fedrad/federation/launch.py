"""Starts a run in one of the runtimes."""

import logging
from dataclasses import dataclass

import torch
from flwr.app import Context, RecordDict

from fedrad.assemble import Federation, algorithm_of
from fedrad.config import POOLED, Experiment
from fedrad.federation.client import client_app
from fedrad.federation.inprocess import InProcessGrid
from fedrad.federation.server import Play, server_app

__all__ = ["Known", "run_local"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """The source of a process that has all sites' data in hand."""

    known: Federation

    def federation(self, experiment: Experiment) -> Federation:
        """Return the sites, whatever the experiment."""
        return self.known


def run_local(play: Play, federation: Federation, device: torch.device) -> None:
    """Play a run in this process: Flower's apps and messages, arrays by reference.

    Args:
        play: what is played, and where it is recorded.
        federation: the sites' data.
        device: where models live.

    Raises:
        RunError: the folder belongs to another experiment, or the disk is full.
    """
    sites = {name: play.folder.site(name) for name in federation.sites}
    if any(algorithm_of(play.experiment.arm(arm)).pooled for arm in play.arms):
        sites[POOLED] = play.folder.site(POOLED)
    grid = InProcessGrid(client_app(Known(federation), device), sites)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    server_app(play)(grid, context)

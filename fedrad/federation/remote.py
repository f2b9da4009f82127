"""Plays an experiment across hospitals, from the coordinator's machine.

The same round loop as everywhere; only the Grid is another. What this process dies of, the same
command mends: the run's folder holds the last round, and each site its own memory of it.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from flwr.app import Context, RecordDict

from fedrad.assemble import algorithm_of
from fedrad.config import Experiment
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, SiteFailed
from fedrad.federation.coordinator import CoordinatorKit, locked
from fedrad.federation.expected import Expected
from fedrad.federation.network import NetworkGrid
from fedrad.federation.rollcall import Met, roll_call
from fedrad.federation.server import Play, server_app
from fedrad.federation.status import RunStatus

__all__ = ["left_out", "run_on"]

PATIENCE_S = 120.0
"""A site that is away is waited for so long, where a quorum can do without it."""
_POOLS = (
    "left out: it trains on all sites' data in one place, and data do not leave a hospital; "
    "play it in a simulation (fedrad run without --on)"
)


def left_out(experiment: Experiment, arms: Sequence[str]) -> dict[str, str]:
    """Return the arms that hospitals cannot play, each with the reason.

    Raises:
        ConfigError: no other arm was asked for.
    """
    pooled = [name for name in arms if algorithm_of(experiment.arm(name)).pooled]
    if len(pooled) == len(arms):
        named = ", ".join(pooled)
        raise ConfigError(f"arms: {named} needs pooled data, and no other arm was asked for")
    return dict.fromkeys(pooled, _POOLS)


def run_on(play: Play, kit: CoordinatorKit) -> Federation:
    """Play a run across the sites of a coordinator; return what they told about themselves.

    Raises:
        ConfigError: another run is on, or no arm can be played across hospitals.
        SiteFailed: the coordinator is down, or too few sites are there.
    """
    torch.set_num_threads(1)
    experiment, say = play.experiment, play.progress.note
    with locked(kit.state / "run.lock", "another run is on at this coordinator"):
        link = kit.link(patience=experiment.deadline)
        status = RunStatus(kit.state / "run.json", play)
        grid = NetworkGrid(
            link,
            deadline=experiment.deadline,
            patience=_patience(experiment),
            check=Expected(experiment).check,
            told=status.waiting,
        )
        link.open(experiment.text())
        try:
            met = roll_call(grid, experiment, wait=_patience(experiment), say=say)
            _check_held_out(experiment, met)
            grid.sites = dict(met.nodes)
            status.met(met)
            context = Context(
                run_id=link.run_id, node_id=1, node_config={}, state=RecordDict(), run_config={}
            )
            server_app(replace(play, progress=status))(grid, context)
            return Federation(dict(met.data), tuple(sorted(play.held_out)), counted=True)
        finally:
            link.close()
            status.ended()


def _patience(experiment: Experiment) -> float:
    # Without a quorum nothing can go on without the site: it is waited for to the end.
    return min(PATIENCE_S, experiment.deadline) if experiment.quorum else experiment.deadline


def _check_held_out(experiment: Experiment, met: Met) -> None:
    for name in experiment.held_out_sites:
        if name not in met.nodes:
            known = ", ".join(met.nodes)
            raise ConfigError(f"held_out_sites: '{name}' is not one of {known}")
    if not set(met.nodes) - set(experiment.held_out_sites):
        raise SiteFailed("every site is held out; none is left to train")

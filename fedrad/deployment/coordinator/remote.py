"""Runs an experiment across hospitals, from the coordinator's machine.

The same round loop as everywhere; only the Grid is another. What this process dies of, the same
command mends: the run's folder holds the last round, and each site its own memory of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from flwr.app import Context, RecordDict

from fedrad.assemble import algorithm_of, cut_of
from fedrad.config import Experiment
from fedrad.data.sites import Federation
from fedrad.deployment.coordinator.kit import CoordinatorKit
from fedrad.deployment.coordinator.latecomers import Latecomers
from fedrad.deployment.coordinator.network import NetworkGrid
from fedrad.deployment.coordinator.reply_checker import ReplyChecker
from fedrad.deployment.coordinator.site_discovery import DiscoveredSites, discover_sites
from fedrad.deployment.coordinator.status import RunStatus
from fedrad.deployment.coordinator.wait_reports import WaitReports
from fedrad.deployment.process_utils import locked
from fedrad.deployment.streams.grid import StreamGrid
from fedrad.deployment.streams.invitation import address_of
from fedrad.deployment.streams.server import StreamServer
from fedrad.errors import ConfigError, SiteFailedError
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.server import server_app
from fedrad.runs import LEFT_OUT

__all__ = ["left_out", "run_on"]

PATIENCE_S = 120.0
"""A site that is away is waited for so long, where a quorum can do without it."""
_EVERYWHERE = "0.0.0.0"
_POOLS = (
    f"{LEFT_OUT}: it trains on all sites' data in one place, and data do not leave a hospital; "
    "run it in a simulation (fedrad run without --on)"
)


def left_out(experiment: Experiment, arms: Sequence[str]) -> dict[str, str]:
    """Return the arms that hospitals cannot run, each with the reason.

    Raises:
        ConfigError: no other arm was asked for.
    """
    pooled = [name for name in arms if algorithm_of(experiment.arm(name)).pooled]
    if len(pooled) == len(arms):
        named = ", ".join(pooled)
        raise ConfigError(f"arms: {named} needs pooled data, and no other arm was asked for")
    return dict.fromkeys(pooled, _POOLS)


def run_on(spec: RunSpec, kit: CoordinatorKit, device: torch.device) -> Federation:
    """Execute a run across the sites of a coordinator; return what they told about themselves.

    Args:
        spec: what is run.
        kit: the coordinator's.
        device: where the coordinator computes its part of a network that is cut.

    Raises:
        ConfigError: another run is on, or the kit has no port for the streams of an arm.
        SiteFailedError: the coordinator is down, or too few sites are there.
    """
    torch.set_num_threads(1)
    experiment, say = spec.experiment, spec.progress.note
    with (
        locked(kit.state / "run.lock", "another run is on at this coordinator"),
        # Before the roll call: a site that still holds a stream of a run that was killed is told at
        # once that it is over, and can answer.
        _streams(spec, kit) as server,
    ):
        link = kit.link(patience=experiment.deadline)
        status = RunStatus(kit.state / "run.json", spec)
        expected = ReplyChecker(experiment)
        waits = WaitReports(say, patience=_patience(experiment), deadline=experiment.deadline)
        grid = NetworkGrid(
            link,
            deadline=experiment.deadline,
            patience=_patience(experiment),
            check=expected.check,
            limit=expected.limit,
            told=lambda seconds: _waited(status, waits, grid, seconds),
        )
        link.open(experiment.text())
        try:
            met = discover_sites(
                grid,
                experiment,
                kit.public_keys(),
                arms=spec.arms,
                seeds=spec.seeds,
                wait=_patience(experiment),
                say=say,
            )
            _check_held_out(experiment, met)
            for sentence in met.refusals():
                say(sentence)
            grid.sites, grid.unasked = dict(met.nodes), met.unasked()
            expected.told = met.told(private=expected.private)
            late = Latecomers(experiment, spec.arms, spec.seeds, met, grid, expected, say)
            status.met(met)
            waits.names = {node.id: name for name, node in met.nodes.items()}
            context = Context(
                run_id=link.run_id, node_id=1, node_config={}, state=RecordDict(), run_config={}
            )
            carrier = grid if server is None else StreamGrid(grid, server, expected.rules)
            server_app(replace(spec, progress=status), device)(carrier, context)
            return Federation({**met.data, **late.data}, tuple(sorted(spec.held_out)), counted=True)
        finally:
            link.close()
            status.ended()


def _waited(
    status: RunStatus, waits: WaitReports, grid: NetworkGrid, seconds: Mapping[int, float]
) -> None:
    status.waiting(seconds)
    waits.look(seconds, away=grid.away(seconds))


def _streams(spec: RunSpec, kit: CoordinatorKit) -> AbstractContextManager[StreamServer | None]:
    """Return what takes the sites' streams; nothing where no arm's network is cut.

    Raises:
        ConfigError: one is, and the kit names no port for it.
    """
    cut = [name for name in spec.arms if cut_of(spec.experiment.arm(name)) is not None]
    if not cut:
        return nullcontext()
    service = kit.federation.coordinator
    if service.stream_port is None:
        raise ConfigError(
            f"arms: {', '.join(cut)} cut the network, and {kit.folder.name}/federation.yaml names "
            "no stream_port for it; the organiser: fedrad provision FILE --stream-port 9095 "
            "--rotate coordinator, then each hospital adds it to its site.yaml, under coordinator"
        )
    return StreamServer(
        bind=address_of(_EVERYWHERE, service.stream_port),
        reach=address_of(service.host, service.stream_port),
        certificate=kit.folder / "server.pem",
        key=kit.folder / "server.key",
        ca=kit.folder / "ca.crt",
    )


def _patience(experiment: Experiment) -> float:
    # Without a quorum nothing can go on without the site: it is waited for to the end.
    return min(PATIENCE_S, experiment.deadline) if experiment.quorum else experiment.deadline


def _check_held_out(experiment: Experiment, met: DiscoveredSites) -> None:
    for name in experiment.held_out_sites:
        if name not in met.nodes:
            known = ", ".join(met.nodes)
            raise ConfigError(f"held_out_sites: '{name}' is not one of {known}")
    if not set(met.nodes) - set(experiment.held_out_sites):
        raise SiteFailedError("every site is held out; none is left to train")

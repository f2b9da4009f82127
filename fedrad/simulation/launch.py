"""Starts a run in one of the runtimes."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from fedrad.assemble import algorithm_of
from fedrad.config import POOLED
from fedrad.core.timing import PhaseTimer
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, MissingError
from fedrad.privacy.account import Simulated
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import site_apps
from fedrad.rounds.server import server_app
from fedrad.rounds.site_tasks import Known
from fedrad.simulation.arm_scheduler import ArmScheduler
from fedrad.simulation.batched_training import BatchedTrainer, check_way
from fedrad.simulation.cores import worker_count
from fedrad.simulation.in_process import InProcessGrid
from fedrad.simulation.worker_processes import WorkersGrid, can_fork
from fedrad.training.devices.autotune import memory_of
from fedrad.training.devices.concurrency_modes import ConcurrencyMode
from fedrad.training.process import set_up_process

__all__ = ["run_local"]

log = logging.getLogger(__name__)


def run_local(
    spec: RunSpec,
    federation: Federation,
    device: torch.device,
    *,
    workers: int | None = 1,
    way: ConcurrencyMode | None = None,
) -> None:
    """Execute a run on this machine: Flower's apps and messages, arrays by reference or shared.

    Args:
        spec: what is run, and where it is recorded.
        federation: the sites' data.
        device: where models live.
        workers: forked processes of one thread each, None for one a core; 1 is this process alone.
            The bits of the results do not depend on it.
        way: in which several sites are trained on one device; None takes the fastest on a GPU,
            and one after the other on a CPU. Results of two ways are equal within rounding.

    Raises:
        ConfigError: the way is not to be had on this device, in one of the arms, or with workers.
        RunError: the folder belongs to another experiment, or the disk is full.
        MissingError: workers were asked for where a process cannot be forked.
    """
    set_up_process()
    sites = {name: spec.folder.site(name) for name in federation.sites}
    if any(algorithm_of(spec.experiment.arm(arm)).pooled for arm in spec.arms):
        sites[POOLED] = spec.folder.site(POOLED)
    meter = PhaseTimer()
    together = _together(spec, len(federation.training), device, way)
    trainer = together.fit if together else None
    app, door = site_apps(
        Known(federation), device, meter=meter, account=Simulated(), simulated=True, trainer=trainer
    )
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    trained = len(federation.training)
    runs = len(spec.arms) * len(spec.seeds)
    count = _workers(workers, device, trained * runs, spec, together is not None)
    here = InProcessGrid(app, sites, meter, door, together)
    if count == 1:
        server_app(spec, device)(here, context)
        return

    def grid(workers: int, apart: bool) -> AbstractContextManager[Grid]:
        if workers == 1 and not apart:
            return nullcontext(InProcessGrid(app, sites, meter, door))
        return WorkersGrid(app, sites, workers, meter, door)

    server_app(spec, device, ArmScheduler(count, trained, grid, meter))(here, context)


def _together(
    spec: RunSpec, sites: int, device: torch.device, way: ConcurrencyMode | None
) -> BatchedTrainer | None:
    """Return what trains several sites at once, where a device or the caller asks for it."""
    if way is not None:
        check_way(way, spec.experiment, spec.arms, device)
    if way is ConcurrencyMode.EAGER or (way is None and device.type != "cuda"):
        return None
    return BatchedTrainer(
        spec.folder, sites, forced=way, memory=memory_of(device), note=spec.progress.note
    )


def _workers(
    asked: int | None, device: torch.device, most: int, spec: RunSpec, together: bool
) -> int:
    """Return how many workers there are in all, one of which is this process."""
    if device.type != "cpu" or (asked is None and not can_fork()):
        if asked is not None and asked > 1:
            raise MissingError(f"--workers {asked}: forked workers are for the CPU, not {device}")
        if device.type == "cpu":
            spec.progress.note("Processes cannot be forked here: sites are run one by one.")
        return 1
    if together:
        if asked is not None and asked > 1:
            raise ConfigError(
                f"--workers {asked}: sites that are trained at once are in one process; "
                "leave --workers or --concurrency out"
            )
        return 1
    return worker_count(asked, most)

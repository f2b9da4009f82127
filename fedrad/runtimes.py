"""The runtimes that execute a run. Importing this loads neither torch nor Ray."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fedrad.errors import ConfigError
from fedrad.simulation.cores import worker_count
from fedrad.simulation.ray.cluster import Cluster

if TYPE_CHECKING:
    from fedrad.data.sites import Federation
    from fedrad.rounds.arm_rounds import RunSpec

__all__ = ["Concurrency", "Runtime", "RuntimeName"]


class RuntimeName(StrEnum):
    """What `fedrad run` can execute a run in."""

    LOCAL = "local"
    RAY = "ray"


class Concurrency(StrEnum):
    """How several sites are trained on one device.

    `training.devices.concurrency_modes.ConcurrencyMode` says what each does.
    """

    AUTO = "auto"
    EAGER = "eager"
    GRAPH = "graph"
    STREAMS = "streams"
    STACKED = "stacked"


@dataclass(frozen=True)
class Runtime:
    """Where sites are run: in processes forked from this one, or by Ray's actors.

    Args:
        name: of the runtime.
        workers: processes of one thread each; None is one a core.
        address: of a running Ray cluster; None starts one on this machine.
        object_store: megabytes of shared memory for a cluster that is started.
        dashboard: whether such a cluster shows its web page.
        concurrency: how the local runtime trains several sites on one device.

    Raises:
        ConfigError: an option is for the other runtime alone.

    >>> Runtime(RuntimeName.LOCAL, address="auto")
    Traceback (most recent call last):
    fedrad.errors.ConfigError: --ray-address is for --runtime ray, found --runtime local
    """

    name: RuntimeName
    workers: int | None = None
    address: str | None = None
    object_store: int | None = None
    dashboard: bool = False
    concurrency: Concurrency = Concurrency.AUTO

    def __post_init__(self) -> None:
        """Refuse options that would have no effect."""
        given = {
            "--ray-address": self.address,
            "--object-store": self.object_store,
            "--dashboard": self.dashboard,
        }
        for option, value in given.items():
            if value and self.name is not RuntimeName.RAY:
                raise ConfigError(f"{option} is for --runtime ray, found --runtime {self.name}")
        if self.concurrency is not Concurrency.AUTO and self.name is RuntimeName.RAY:
            raise ConfigError("--concurrency is for --runtime local, found --runtime ray")

    @contextmanager
    def started(self) -> Iterator[Cluster | None]:
        """Start or join Ray meanwhile, where it is asked for; it is stopped afterwards.

        Raises:
            ConfigError: the object store does not fit.
            MissingError: Ray is not installed.
        """
        if self.name is RuntimeName.LOCAL:
            yield None
            return
        with Cluster(
            workers=None if self.address else worker_count(self.workers, sys.maxsize),
            address=self.address,
            object_store=self.object_store * 10**6 if self.object_store else None,
            dashboard=self.dashboard,
        ) as cluster:
            yield cluster

    def run(
        self, spec: "RunSpec", federation: "Federation", device: str, cluster: Cluster | None
    ) -> None:
        """Execute a run.

        Args:
            spec: what is run, and where it is recorded.
            federation: the sites' data.
            device: "cpu", "cuda" or "cuda:1".
            cluster: that `started` gave.

        Raises:
            MissingError: the device, Ray or its cluster is not there.
            ConfigError: the device or an arm cannot have the concurrency asked for.
            RunError: the folder belongs to another experiment, or the disk is full.
        """
        import torch

        from fedrad.assemble import device_of

        if cluster is None:
            from fedrad.simulation.launch import run_local
            from fedrad.training.devices.concurrency_modes import ConcurrencyMode

            way = (
                None if self.concurrency is Concurrency.AUTO else ConcurrencyMode(self.concurrency)
            )
            run_local(spec, federation, device_of(device), workers=self.workers, way=way)
            return
        from fedrad.simulation.ray.grid import run_ray

        # A cluster's nodes may have GPUs where this machine has none; they are asked later.
        where = torch.device(device) if self.address and device == "cuda" else device_of(device)
        run_ray(spec, federation, where, workers=self.workers, cluster=cluster)

"""The Ray actor that plays sites: one process with its own model and a view of the node's data."""

import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from flwr.app import Message

import fedrad
from fedrad.core.meter import Meter
from fedrad.data.sites import Federation
from fedrad.federation.client import client_app
from fedrad.federation.inprocess import InProcessGrid
from fedrad.federation.launch import Known
from fedrad.federation.parcel import Arrays, Files, files_in, opened, packed, read, set_files
from fedrad.federation.records import bundle_of, config_of, numbers_of, pack
from fedrad.privacy.account import Simulated
from fedrad.training.process import set_up_process

__all__ = ["Done", "Hello", "Job", "SiteActor", "versions"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A message on its way to an actor; its arrays lie in the object store.

    Args:
        kind, node, group: of Flower's message.
        config: its settings.
        sites: that it is for.
        memory: site -> the files that it keeps for this arm and seed; read where the actor's
            disk is not that of the run's folder.
    """

    kind: str
    node: int
    group: str
    config: dict[str, Any]
    sites: tuple[str, ...]
    memory: Mapping[str, Files] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """An actor's answer; `memory` as in `Job`, after the work."""

    numbers: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    error: tuple[int, str] | None = None
    memory: dict[str, Files] = field(default_factory=dict)


@dataclass(frozen=True)
class Hello:
    """What an actor says when it has started."""

    pid: int
    node: str
    address: str
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Return what must be the same on all nodes of a cluster."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {
        "fedrad": fedrad.__version__,
        "torch": str(torch.__version__).partition("+")[0],
        "python": python,
    }


class SiteActor:
    """Plays sites, one message after the other."""

    def begin(
        self,
        expected: Mapping[str, str],
        home: str,
        folders: Mapping[str, Path],
        data: Sequence[Any],
        device: str,
    ) -> Hello:
        """Get ready, unless this node has other versions.

        Args:
            expected: the driver's versions.
            home: the node of the driver, whose disk holds the run's folder.
            folders: site -> where it keeps its memory at home.
            data: references to the federation by name (for home) and by value (for elsewhere).
            device: where models live.
        """
        context = ray.get_runtime_context()
        node = context.get_node_id()
        hello = Hello(os.getpid(), node, _address(), versions())
        if hello.versions != expected:
            return hello
        set_up_process()
        # A running cluster's actors are at niceness 15 unless its owner said otherwise.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        # Weights and data are read in place and never written.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._travels = node != home
        if self._travels:
            scratch = Path(tempfile.mkdtemp(prefix="fedrad-memory-"))
            folders = {site: scratch / str(n) for n, site in enumerate(sorted(folders))}
        self._folders = folders
        federation: Federation = ray.get(data[1] if self._travels else data[0])
        meter = Meter()
        app = client_app(
            Known(opened(federation)), torch.device(device), meter=meter, account=Simulated()
        )
        self._grid = InProcessGrid(app, folders, meter)
        return hello

    def answer(
        self, jobs: Sequence[Job], arrays: Arrays
    ) -> tuple[list[Done], dict[str, float], float | None]:
        """Play messages with the same arrays.

        Returns:
            Their answers or blocks' sums, seconds by purpose, and when the first step began.
        """
        answers = [self._answer(job, arrays) for job in jobs]
        meter = self._grid.meter
        return answers, meter.take(), meter.first_training

    def _answer(self, job: Job, arrays: Arrays) -> Done:
        content = pack(read(arrays), config=job.config)
        folders = {site: self._folders[site] / own_folder(job.config) for site in job.sites}
        if self._travels:
            for site, folder in folders.items():
                set_files(folder, job.memory.get(site, {}))
        with self._grid.meter.spent("messages"):
            done = _done(self._grid.play(content, job.kind, job.node, job.group))
        if not self._travels:
            return done
        memory = {site: files_in(folder) for site, folder in folders.items()}
        for folder in folders.values():
            set_files(folder, {})
        return Done(done.numbers, done.config, done.arrays, done.error, memory)


def own_folder(config: Mapping[str, Any]) -> Path:
    """Return the part of a site's folder that a message may read and write."""
    return Path(str(config.get("arm"))) / f"seed-{config.get('seed')}"


def _address() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _done(reply: Message) -> Done:
    if reply.has_error():
        return Done(error=(reply.error.code, reply.error.reason or ""))
    content = reply.content
    return Done(numbers_of(content), config_of(content), packed(bundle_of(content)))

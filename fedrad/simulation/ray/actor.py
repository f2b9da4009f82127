"""The Ray actor that runs sites: one process with its own model and a view of the node's data."""

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
from fedrad.algorithms.base import Frame
from fedrad.core.timing import PhaseTimer
from fedrad.data.sites import Federation
from fedrad.privacy.account import Simulated
from fedrad.rounds.client_app import FULL, site_apps
from fedrad.rounds.partial_aggregation import failures_in
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.site_streams import ClientCoroutine
from fedrad.rounds.site_tasks import Known
from fedrad.simulation.in_process import InProcessGrid
from fedrad.simulation.ray.placement import GpuMemory, read_gpu_memory
from fedrad.simulation.ray.serialization import (
    Arrays,
    Files,
    copied,
    files_in,
    from_object_store,
    set_files,
    to_object_store,
    with_mapped_files,
)
from fedrad.training.process import set_up_process

__all__ = ["ActorInfo", "ActorRequest", "ActorResponse", "SerializedFrame", "SiteActor", "versions"]

log = logging.getLogger(__name__)

_FRAME = "frame"


@dataclass(frozen=True)
class ActorRequest:
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
class ActorResponse:
    """An actor's answer; `memory` as in `ActorRequest`, after the work."""

    numbers: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    error: tuple[int, str] | None = None
    memory: dict[str, Files] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether the memory of the actor's device was too small for one of the sites."""
        failed = {"": self.error[1]} if self.error else failures_in(self.config)
        return any(reason.startswith(FULL) for reason in failed.values())


@dataclass(frozen=True)
class SerializedFrame:
    """A frame of a stream on its way."""

    kind: str
    arrays: Arrays
    numbers: dict[str, float]

    @classmethod
    def of(cls, frame: Frame) -> "SerializedFrame":
        """Return a frame as Ray carries it."""
        return cls(frame.kind, to_object_store({_FRAME: frame.arrays}), dict(frame.numbers))

    def frame(self) -> Frame:
        """Return the frame, with arrays that may be written."""
        return Frame(self.kind, copied(self.arrays)[_FRAME], self.numbers)


@dataclass(frozen=True)
class ActorInfo:
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


WorkerTiming = tuple[dict[str, float], float | None, GpuMemory | None]
"""Seconds by purpose, when the first step began, and what a GPU told after training."""
Answered = tuple[list[ActorResponse], WorkerTiming]
"""Answers or blocks' sums, and what they took."""
Stepped = tuple[SerializedFrame | ActorResponse, WorkerTiming]
"""A half's next frame or its reply, and what it took."""


class SiteActor:
    """Runs sites, one message after the other."""

    gauge = staticmethod(read_gpu_memory)

    def begin(
        self,
        expected: Mapping[str, str],
        home: str,
        folders: Mapping[str, Path],
        data: Sequence[Any],
        device: str,
    ) -> ActorInfo:
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
        hello = ActorInfo(os.getpid(), node, _address(), versions())
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
        meter = PhaseTimer()
        self._device = torch.device(device)
        app, door = site_apps(
            Known(with_mapped_files(federation)),
            self._device,
            meter=meter,
            account=Simulated(),
            simulated=True,
        )
        self._grid = InProcessGrid(app, folders, meter, door)
        self._halves: dict[str, tuple[ClientCoroutine, ActorRequest]] = {}
        return hello

    def answer(self, jobs: Sequence[ActorRequest], arrays: Arrays) -> Answered:
        """Run messages with the same arrays."""
        answers = [self._answer(job, arrays) for job in jobs]
        if any(done.full for done in answers):
            # What torch holds back is room for the others.
            torch.cuda.empty_cache()
        return answers, self._took(trained=jobs[0].kind == "train")

    def open(self, job: ActorRequest, arrays: Arrays) -> Stepped:
        """Begin a site's half of a stream, in place of one that was broken off.

        Returns:
            Its first frame or its reply, and what it took.
        """
        (site,) = job.sites
        content = pack(from_object_store(arrays), config=job.config)
        self._remember(job)
        message = self._grid.create_message(content, job.kind, job.node, job.group)
        self._halves[site] = self._grid.half(message), job
        return self.step(site, None)

    def step(self, site: str, answer: SerializedFrame | None) -> Stepped:
        """Return what a site's half says to an answer, as `open` does."""
        half, job = self._halves[site]
        told: SerializedFrame | ActorResponse
        with self._grid.meter.spent("messages"):
            try:
                frame = next(half) if answer is None else half.send(answer.frame())
                told = SerializedFrame.of(frame)
            except StopIteration as end:
                del self._halves[site]
                told = self._with_memory(job, _done(end.value))
        return told, self._took(trained=job.kind == "train" and isinstance(told, ActorResponse))

    def _took(self, *, trained: bool) -> WorkerTiming:
        meter = self._grid.meter
        gauge = self.gauge(self._device) if trained else None
        return meter.take(), meter.first_training, gauge

    def _answer(self, job: ActorRequest, arrays: Arrays) -> ActorResponse:
        content = pack(from_object_store(arrays), config=job.config)
        self._remember(job)
        with self._grid.meter.spent("messages"):
            done = _done(self._grid.answer_group(content, job.kind, job.node, job.group))
        return self._with_memory(job, done)

    def _own_folders(self, job: ActorRequest) -> dict[str, Path]:
        return {site: self._folders[site] / own_folder(job.config) for site in job.sites}

    def _remember(self, job: ActorRequest) -> None:
        """Lay out what the sites remember, where this node's disk is not the run's."""
        if self._travels:
            for site, folder in self._own_folders(job).items():
                set_files(folder, job.memory.get(site, {}))

    def _with_memory(self, job: ActorRequest, done: ActorResponse) -> ActorResponse:
        """Return an answer together with what the sites remember now, where that has to travel."""
        if not self._travels:
            return done
        folders = self._own_folders(job)
        memory = {site: files_in(folder) for site, folder in folders.items()}
        for folder in folders.values():
            set_files(folder, {})
        return ActorResponse(done.numbers, done.config, done.arrays, done.error, memory)


def own_folder(config: Mapping[str, Any]) -> Path:
    """Return the part of a site's folder that a message may read and write."""
    return Path(str(config.get("arm"))) / f"seed-{config.get('seed')}"


def _address() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _done(reply: Message) -> ActorResponse:
    if reply.has_error():
        return ActorResponse(error=(reply.error.code, reply.error.reason or ""))
    content = reply.content
    return ActorResponse(
        numbers_of(content), config_of(content), to_object_store(bundle_of(content))
    )

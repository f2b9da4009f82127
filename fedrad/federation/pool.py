"""The Ray actors of a run: started, greeted, and replaced when they die."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from fedrad.data.sites import Federation
from fedrad.errors import MissingError
from fedrad.federation.actor import Hello, SiteActor, versions
from fedrad.federation.parcel import by_name, by_value, in_files, size_of

__all__ = ["Actor", "ActorPool"]

log = logging.getLogger(__name__)

_FAILED_STARTS = 3
_START_S = 120.0
_STORE_SHARE = 0.8
"""Of the object store, at most; answers and Ray's own objects need the rest."""


@dataclass(eq=False)
class Actor:
    """An actor that we started.

    Args:
        handle: Ray's.
        begun: reference to what it will say when it has begun.
        hello: what it said, None before.
        jobs: reference to answers -> their messages' numbers, oldest first.
    """

    handle: Any
    begun: Any
    hello: Hello | None = None
    jobs: dict[Any, tuple[str, ...]] = field(default_factory=dict)


class ActorPool:
    """So many actors, and the data that they share.

    Args:
        federation: the sites' data.
        folders: a site's name -> the folder on this node where it keeps its memory.
        device: where models live.
        count: of actors.

    Raises:
        MissingError: the data are too large for the object store, or there is no GPU.
    """

    def __init__(
        self, federation: Federation, folders: Mapping[str, Path], device: torch.device, count: int
    ) -> None:
        self.home: str = ray.get_runtime_context().get_node_id()
        self._federation = federation
        self._folders = dict(folders)
        self._device = device.type
        self._held = 0
        self._store = _smallest_store()
        self._here = self._put(by_name(federation))
        self._elsewhere: Any = None
        self._failed_starts = 0
        self._since = time.monotonic()
        self._class = ray.remote(SiteActor).options(max_concurrency=1, **_share(device, count))
        self._actors = [self._start() for _ in range(count)]

    @property
    def begun(self) -> list[Actor]:
        """Return the actors that take work."""
        return [actor for actor in self._actors if actor.hello]

    def awaited(self) -> dict[Any, Actor]:
        """Return what is awaited, and of which actor."""
        return {
            ref: actor
            for actor in self._actors
            for ref in (actor.jobs if actor.hello else [actor.begun])
        }

    def is_away(self, actor: Actor) -> bool:
        """Return whether an actor is on another node than this process."""
        return actor.hello is not None and actor.hello.node != self.home

    def has(self, actor: Actor) -> bool:
        """Return whether an actor has not been replaced."""
        return actor in self._actors

    def place(self, actor: Actor) -> int:
        """Return which of the actors it is, from 0; one in place of another bears its number."""
        return self._actors.index(actor)

    def begin(self, actor: Actor) -> None:
        """Take an actor among those that work, now that it has spoken.

        Raises:
            MissingError: it has other versions than this process, or cannot be started.
        """
        try:
            hello: Hello = ray.get(actor.begun)
        except RayError as error:
            self._not_begun(actor, error)
            return
        ours = versions()
        if hello.versions != ours:
            raise MissingError(
                f"the Ray node {hello.address} has {_told(hello.versions)}, this machine has "
                f"{_told(ours)}: install the same on all nodes"
            )
        log.info("worker %d began on %s", hello.pid, hello.address)
        actor.hello = hello
        self._failed_starts = 0

    def replace(self, actor: Actor) -> None:
        """Start another actor in place of one that died, when there is room for it."""
        # It may only be out of reach: it must not go on with what another one will do.
        ray.kill(actor.handle)
        self._actors[self._actors.index(actor)] = self._start()
        if not self.begun:
            self._since = time.monotonic()

    def check(self) -> None:
        """Stop a wait for actors that do not come.

        Raises:
            MissingError: none has begun for two minutes.
        """
        if not self.begun and time.monotonic() - self._since > _START_S:
            free = ray.available_resources()  # type: ignore[no-untyped-call]
            raise MissingError(
                f"no Ray worker began within {_START_S:g} s: it needs a CPU"
                f"{' and a share of a GPU' if self._device == 'cuda' else ''}; "
                f"free are {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"
            )

    def check_store(self, size: int, what: str) -> None:
        """Refuse what would make Ray move shared memory to the disk.

        Args:
            size: bytes that come on top of the data.
            what: they are.

        Raises:
            MissingError: the smallest node's object store is too small.
        """
        needed = (self._held + size) / _STORE_SHARE
        if needed > self._store:
            raise MissingError(
                f"Ray's object store holds {self._store / 1e6:.0f} MB, and {what} of "
                f"{size / 1e6:.0f} MB need one of {needed / 1e6:.0f} MB: say so with "
                "--object-store, or where the cluster is started"
            )

    def close(self) -> None:
        """Stop all actors."""
        for actor in self._actors:
            ray.kill(actor.handle)

    def _start(self) -> Actor:
        if self._elsewhere is None:
            alone = len(_nodes()) == 1
            # Where nothing lies in files, both are the same.
            named = in_files(self._federation)
            self._elsewhere = (
                None if alone else self._put(by_value(self._federation)) if named else self._here
            )
        handle: Any = self._class.remote()
        begun = handle.begin.remote(
            versions(), self.home, self._folders, [self._here, self._elsewhere], self._device
        )
        return Actor(handle, begun)

    def _put(self, federation: Federation) -> Any:
        size = size_of(federation)
        self.check_store(size, "data")
        self._held += size
        return ray.put(federation)

    def _not_begun(self, actor: Actor, error: RayError) -> None:
        if "ModuleNotFoundError" in str(error):
            raise MissingError(
                f"a Ray node has no fedrad that fits: install {_told(versions())} on all nodes"
            ) from error
        self._failed_starts += 1
        if self._failed_starts >= _FAILED_STARTS:
            raise MissingError(
                f"{_FAILED_STARTS} Ray workers could not begin: {type(error).__name__}"
            ) from error
        log.warning("a worker could not begin (%s); another is started", type(error).__name__)
        self.replace(actor)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _smallest_store() -> float:
    return min(float(node["Resources"].get("object_store_memory", 0)) for node in _nodes())


def _share(device: torch.device, count: int) -> dict[str, float]:
    """Return an actor's part of the machine; no actor's GPU is two halves of two."""
    if device.type == "cpu":
        return {"num_cpus": 1}
    gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if device.type != "cuda" or not gpus:
        raise MissingError(f"--device {device}: no node of the Ray cluster has one")
    return {"num_cpus": 1, "num_gpus": 1 / -(-count // gpus)}


def _told(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())

"""The Ray actors of a run: started, greeted, replaced when they die, more or fewer as they fit."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from fedrad.data.sites import Federation
from fedrad.errors import MissingError
from fedrad.simulation.ray.actor import ActorInfo, SiteActor, versions
from fedrad.simulation.ray.placement import START_S, GpuMemory, Placement, nodes, plan_placement
from fedrad.simulation.ray.serialization import by_name, by_value, bytes_of_data, data_to_files

__all__ = ["Actor", "ActorPool"]

log = logging.getLogger(__name__)

_FAILED_STARTS = 3
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
        room: where it is.
        number: from 0; one in place of another bears its number.
    """

    handle: Any
    begun: Any
    room: Placement
    number: int
    hello: ActorInfo | None = None
    jobs: dict[Any, tuple[str, ...]] = field(default_factory=dict)


class ActorPool:
    """Actors, and the data that they share.

    Args:
        federation: the sites' data.
        folders: a site's name -> the folder on this node where it keeps its memory.
        device: where models live.
        count: of actors, at most.
        measure: whether those that share a GPU are as many as fit it, or as many as may be.
        note: is told in a sentence how many share a GPU, and why.

    Raises:
        MissingError: the data are too large for the object store, or there is no GPU.
    """

    def __init__(
        self,
        federation: Federation,
        folders: Mapping[str, Path],
        device: torch.device,
        count: int,
        *,
        measure: bool = False,
        note: Callable[[str], None] = log.info,
    ) -> None:
        self.home: str = ray.get_runtime_context().get_node_id()
        self._federation = federation
        self.folders = {site: folder.resolve() for site, folder in folders.items()}
        self._device = device.type
        self._held = 0
        self._store = _smallest_store()
        self._here = self._put(by_name(federation))
        self._elsewhere: Any = None
        self._failed_starts = 0
        self._since = time.monotonic()
        self._note = note
        self._rooms = plan_placement(device, count, measure=measure)
        self._count = 0
        self._actors: list[Actor] = []
        for room in self._rooms.each:
            self._fill(room, room.first)

    def __enter__(self) -> "ActorPool":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all actors."""
        for actor in self._actors:
            ray.kill(actor.handle)
        self._rooms.close()

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

    def measured(self, actor: Actor, gauge: GpuMemory | None) -> None:
        """Start as many more actors beside one that has trained as its GPU holds."""
        room = actor.room
        if gauge is None or room.measured:
            return
        room.measured, asked, room.most = True, room.most, gauge.fit(room.most)
        self._fill(room, room.most - 1)
        self._note(
            f"{self._named(room)}: {_workers(room.most)} at a time of {asked} that its CPUs "
            f"allow; one takes {gauge.taken / 1e6:.0f} MB, {gauge.free / 1e6:.0f} MB are free"
        )

    def fewer(self, actor: Actor) -> list[Actor]:
        """End half of the actors beside one that found its GPU's memory full.

        Returns:
            Those that were ended, with the jobs that they had; none where it was alone.
        """
        room = actor.room
        here = [one for one in self._actors if one.room is room]
        room.measured, room.most = True, len(here) // 2
        if not room.most:
            return []
        # The one that was there last has the least to lose, unless it is the one that met it.
        ended = [one for one in reversed(here) if one is not actor][: len(here) - room.most]
        for one in ended:
            ray.kill(one.handle)
            self._actors.remove(one)
        self._note(
            f"{self._named(room)}: its memory was full with {_workers(len(here))}; "
            f"it goes on with {room.most}"
        )
        return ended

    def begin(self, actor: Actor) -> None:
        """Take an actor among those that work, now that it has spoken.

        Raises:
            MissingError: it has other versions than this process, or cannot be started.
        """
        try:
            hello: ActorInfo = ray.get(actor.begun)
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
        self._actors[self._actors.index(actor)] = self._start(actor.room, actor.number)
        if not self.begun:
            self._since = time.monotonic()

    def check(self) -> None:
        """Stop a wait for actors that do not come.

        Raises:
            MissingError: none has begun for two minutes.
        """
        if not self.begun and time.monotonic() - self._since > START_S:
            free = ray.available_resources()  # type: ignore[no-untyped-call]
            raise MissingError(
                f"no Ray worker began within {START_S:g} s: it needs a CPU"
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

    def _named(self, room: Placement) -> str:
        return f"GPU {self._rooms.each.index(room) + 1} of {len(self._rooms.each)}"

    def _fill(self, room: Placement, count: int) -> None:
        for _ in range(count):
            self._actors.append(self._start(room, self._count))
            self._count += 1

    def _start(self, room: Placement, number: int) -> Actor:
        if self._elsewhere is None:
            alone = len(nodes()) == 1
            # Where nothing lies in files, both are the same.
            named = data_to_files(self._federation)
            self._elsewhere = (
                None if alone else self._put(by_value(self._federation)) if named else self._here
            )
        handle: Any = ray.remote(SiteActor).options(max_concurrency=1, **room.options).remote()
        begun = handle.begin.remote(
            versions(), self.home, self.folders, [self._here, self._elsewhere], self._device
        )
        return Actor(handle, begun, room, number)

    def _put(self, federation: Federation) -> Any:
        size = bytes_of_data(federation)
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


def _smallest_store() -> float:
    return min(float(node["Resources"].get("object_store_memory", 0)) for node in nodes())


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def _told(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())

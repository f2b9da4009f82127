"""Flower's Grid over forked workers: one single-threaded process a core, arrays in shared memory.

The parent imports torch and reads the data once, then forks. A worker that is free takes the next
block of sites, those with the most images first. The weights that a round sends are written once,
to memory that all workers map; what comes back is a block's sum. Pipes carry names and numbers
only, and nobody polls. A worker that dies is replaced, and its block is played again.
"""

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrad.algorithms.base import Reply
from fedrad.core.state import Bundle, clone
from fedrad.errors import MissingError, SiteFailed
from fedrad.federation.blocks import BLOCK, WEIGHT, Part, fold, pack_part
from fedrad.federation.channels import Channels, Door
from fedrad.federation.inprocess import InProcessGrid
from fedrad.federation.records import bundle_of, config_of, numbers_of, pack
from fedrad.federation.shared import Layout, SharedArea

__all__ = ["WorkersGrid", "can_fork", "worker_count"]

log = logging.getLogger(__name__)

_DEATHS = 3
"""A block that has killed so many workers is given up: it would kill the next one too."""


@dataclass(frozen=True)
class _Job:
    """A message on its way to a worker; its arrays lie in the shared area."""

    number: str
    kind: str
    node: int
    group: str
    config: dict[str, Any]
    layout: Layout


@dataclass(frozen=True)
class _Done:
    """A worker's answer; its arrays lie in the worker's area."""

    number: str
    numbers: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    error: tuple[int, str] | None = None


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    area: SharedArea
    job: _Job | None = None


class WorkersGrid(Grid):
    """A Grid whose nodes are played by forked processes.

    Args:
        app: what every node runs; built before the fork, so its data are shared.
        sites: a site's name -> the folder where it keeps its memory.
        workers: processes.
        door: opens a node's streams; without one there are none.
    """

    folds = True

    def __init__(
        self, app: ClientApp, sites: Mapping[str, Path], workers: int, door: Door | None = None
    ) -> None:
        if not can_fork():
            raise MissingError(
                "workers need fork: not on this system, and not after CUDA has started"
            )
        self._inner = InProcessGrid(app, sites, door)
        self._nodes = dict(zip(sorted(sites), self._inner.get_node_ids(), strict=True))
        self._sent = SharedArea("sent")
        self._sent_key: tuple[int, ...] = ()
        self._sent_layout = Layout((), 0)
        self._kept: list[Any] = []
        self._queue: deque[str] = deque()
        self._messages: dict[str, Message] = {}
        self._deaths: dict[str, int] = {}
        self._count = 0
        self._pool: list[_Worker] = []
        for _ in range(workers):
            self._pool.append(self._fork())

    def __enter__(self) -> "WorkersGrid":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._pool:
            worker.process.kill()
        for worker in self._pool:
            worker.process.join()
            worker.pipe.close()
            worker.area.close()
        self._sent.close()

    def set_run(self, run: Run) -> None:
        """Do nothing: this grid has one run."""

    @property
    def run(self) -> Run:
        """Return the only run."""
        return self._inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a node."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, in sorted order of their sites' names."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages, in the order in which workers take them."""
        ids = []
        for message in messages:
            self._count += 1
            number = str(self._count)
            message.metadata.__dict__["_message_id"] = number
            self._messages[number] = message
            self._queue.append(number)
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Wait until a worker has answered, and return all answers that were asked for."""
        wanted = set(message_ids)
        self._feed()
        busy = [worker for worker in self._pool if worker.job]
        if not busy:
            return []
        ready = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy])
        answers = [
            self._take(worker)
            for worker in busy
            if worker.pipe in ready or worker.process.sentinel in ready
        ]
        self._feed()
        return [m for m in answers if m and m.metadata.reply_to_message_id in wanted]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return all replies, in order of arrival."""
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting:
            pulled = list(self.pull_messages(waiting))
            waiting -= {message.metadata.reply_to_message_id for message in pulled}
            replies += pulled
        return replies

    def streams(
        self, messages: Mapping[str, Message], *, deadline: float
    ) -> AbstractContextManager[Channels]:
        """Open streams; sites and server take turns in this process, and workers have no part."""
        return self._inner.streams(messages, deadline=deadline)

    def _feed(self) -> None:
        """Give each free worker the next message."""
        for worker in self._pool:
            if worker.job or not self._queue:
                continue
            message = self._messages[self._queue[0]]
            records = tuple(id(record) for record in message.content.array_records.values())
            if records != self._sent_key or not records:
                if any(other.job for other in self._pool) and records != self._sent_key:
                    # Someone still reads what was sent before; it is late, and we wait for it.
                    return
                self._send(message, records)
            self._queue.popleft()
            worker.job = _Job(
                number=message.metadata.message_id,
                kind=message.metadata.message_type,
                node=message.metadata.dst_node_id,
                group=message.metadata.group_id,
                config=config_of(message.content),
                layout=self._sent_layout,
            )
            worker.pipe.send(worker.job)

    def _send(self, message: Message, records: tuple[int, ...]) -> None:
        self._sent_layout = self._sent.write(bundle_of(message.content))
        self._sent_key = records
        # Held, so that no other record can come to have the same id.
        self._kept = list(message.content.array_records.values())

    def _take(self, worker: _Worker) -> Message | None:
        assert worker.job is not None
        try:
            done: _Done = worker.pipe.recv()
        except (EOFError, OSError):
            return self._replace(worker)
        worker.job = None
        message = self._messages.pop(done.number)
        if done.error:
            return Message(Error(*done.error), reply_to=message)
        arrays = _copied(worker.area.read(done.layout)) if done.layout else {}
        return Message(pack(arrays, done.numbers, done.config), reply_to=message)

    def _replace(self, worker: _Worker) -> Message | None:
        assert worker.job is not None
        number = worker.job.number
        worker.process.join()
        code = worker.process.exitcode
        worker.pipe.close()
        worker.area.close()
        self._pool[self._pool.index(worker)] = self._fork()
        self._deaths[number] = self._deaths.get(number, 0) + 1
        if self._deaths[number] < _DEATHS:
            log.warning("a worker died (exit code %s); its sites are played again", code)
            self._queue.appendleft(number)
            return None
        reason = f"{SiteFailed.__name__}: {_DEATHS} workers died of it (exit code {code})"
        return Message(Error(100, reason), reply_to=self._messages.pop(number))

    def _fork(self) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        area = SharedArea("sums")
        others = [ours, *(worker.pipe for worker in self._pool)]
        process = multiprocessing.get_context("fork").Process(
            target=self._work, args=(theirs, area, others), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, area)

    def _work(self, pipe: Connection, area: SharedArea, others: Sequence[Connection]) -> None:
        # Ctrl-C reaches the whole group; the parent decides what becomes of its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for other in others:
            # A pipe of which nobody holds the parent's end tells a worker that its parent is gone.
            other.close()
        torch.set_num_threads(1)
        while True:
            try:
                job: _Job = pipe.recv()
                pipe.send(self._done(job, area))
            except (EOFError, BrokenPipeError):
                os._exit(0)

    def _done(self, job: _Job, area: SharedArea) -> _Done:
        content = pack(self._sent.read(job.layout), config=job.config)
        reply = (
            self._block(job, content) if BLOCK in job.config else self._one(job, content, job.node)
        )
        if reply.has_error():
            return _Done(job.number, error=(reply.error.code, reply.error.reason or ""))
        arrays = bundle_of(reply.content)
        return _Done(
            number=job.number,
            numbers=numbers_of(reply.content),
            config=config_of(reply.content),
            layout=area.write(arrays) if arrays else None,
        )

    def _one(self, job: _Job, content: RecordDict, node: int) -> Message:
        return self._inner.answer(self.create_message(content, job.kind, node, job.group))

    def _block(self, job: _Job, content: RecordDict) -> Message:
        part = Part()
        for site in str(job.config[BLOCK]).split(","):
            reply = self._one(job, content, self._nodes[site])
            if reply.has_error():
                part.failed[site] = reply.error.reason or "unknown error"
                continue
            found = Reply(bundle_of(reply.content), numbers_of(reply.content))
            fold(part, found, str(job.config[WEIGHT]))
        question = self.create_message(content, job.kind, job.node, job.group)
        return Message(pack_part(part), reply_to=question)


def can_fork() -> bool:
    """Return whether a process may be forked here: on Linux, before CUDA has started."""
    return hasattr(os, "memfd_create") and not bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def worker_count(asked: int | None, sites: int) -> int:
    """Return how many workers to fork: as asked, else one a core, never more than sites."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if asked is not None and asked > cores:
        log.warning("%d workers on %d cores: they will wait for one another", asked, cores)
    return max(1, min(asked or cores, sites))


def _copied(bundle: Bundle) -> Bundle:
    return {name: clone(state) for name, state in bundle.items()}

"""Flower's Grid over forked workers: one single-threaded process a core, arrays in shared memory.

The parent imports torch and reads the data once, then forks. A worker that is free takes the next
block of sites, those with the most images first; of small networks several blocks while many wait,
since handing over costs as much as a step of theirs. The weights that a round sends are written
once, to memory that all workers map; what comes back are the blocks' sums. Pipes carry names and
numbers only, and nobody polls. A worker that dies is replaced, and its blocks are run again; one
that is busy with what nobody waits for any more is replaced too: of blocks that go together all are
late when one is.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from fedrad.core.state import Bundle, clone
from fedrad.core.timing import PhaseTimer
from fedrad.errors import MissingError, SiteFailedError
from fedrad.rounds.records import arrays_in, bundle_of, config_of, numbers_of, pack
from fedrad.rounds.site_streams import StreamHandlerFactory
from fedrad.rounds.worker_time import WorkerTime
from fedrad.simulation.in_process import InProcessGrid
from fedrad.simulation.message_queue import MAX_WORKER_CRASHES, arrays_of
from fedrad.simulation.parent_death import kill_on_parent_exit
from fedrad.simulation.queued_grid import QueuedGrid
from fedrad.simulation.shared_memory import Layout, SharedArea
from fedrad.training.process import set_up_process

__all__ = ["WorkersGrid", "can_fork", "check_fork"]

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""So often a round looks whether its deadline has passed."""


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
    """A worker's answer to one message; its arrays lie in the worker's area."""

    numbers: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    error: tuple[int, str] | None = None


@dataclass
class _Worker:
    place: int
    process: Any
    pipe: Connection
    area: SharedArea
    jobs: tuple[str, ...] = ()


class WorkersGrid(QueuedGrid):
    """A Grid whose nodes are run by forked processes.

    Args:
        app: what every node runs; built before the fork, so its data are shared.
        sites: a site's name -> the folder where it keeps its memory.
        workers: processes.
        meter: what the app tells its time to.
        door: opens a node's streams; without one there are none.
    """

    def __init__(
        self,
        app: ClientApp,
        sites: Mapping[str, Path],
        workers: int,
        meter: PhaseTimer | None = None,
        door: StreamHandlerFactory | None = None,
    ) -> None:
        check_fork()
        inner = InProcessGrid(app, sites, meter, door)
        super().__init__(inner)
        self.spent = WorkerTime([{} for _ in range(workers)], inner.meter)
        self._sent = SharedArea("sent")
        self._sent_key: tuple[int, ...] | None = None
        self._sent_layout = Layout((), 0)
        self._kept: list[Any] = []
        self._pool: list[_Worker] = []
        for place in range(workers):
            self._pool.append(self._fork(place))

    def __enter__(self) -> "WorkersGrid":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._pool:
            worker.process.kill()
        for worker in self._pool:
            _close(worker)
        self._sent.close()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Wait a second at most for an answer, and return all answers that were asked for."""
        wanted = set(message_ids)
        self._drop_late(wanted)
        self._feed()
        busy = [worker for worker in self._pool if worker.jobs]
        if not busy:
            return []
        ready = wait([*(w.pipe for w in busy), *(w.process.sentinel for w in busy)], _LOOK_S)
        return [
            answer
            for worker in busy
            if worker.pipe in ready or worker.process.sentinel in ready
            for answer in self._take(worker)
        ]

    def _drop_late(self, wanted: Container[str]) -> None:
        """Forget messages whose answers nobody waits for, and end workers that are at one.

        They may hang, read what was sent before, or write a site's memory over newer memory.
        """
        self._waiting.drop_old(wanted)
        for worker in list(self._pool):
            if any(number not in wanted for number in worker.jobs):
                for number in worker.jobs:
                    self._waiting.pop(number)
                worker.process.kill()
                self._replace(worker)

    def _feed(self) -> None:
        """Give each free worker the next message, or the next few."""
        for worker in self._pool:
            if worker.jobs or not len(self._waiting):
                continue
            key = arrays_of(self._waiting.head())
            if key != self._sent_key:
                if any(other.jobs for other in self._pool):
                    return  # someone still reads what was sent before
                self._send(self._waiting.head(), key)
            worker.jobs = self._waiting.next(len(self._pool))
            # A worker that died while it had nothing to do is met here; `_take` sees its end.
            with suppress(OSError):
                worker.pipe.send([self._job(number) for number in worker.jobs])

    def _job(self, number: str) -> _Job:
        message = self._waiting[number]
        return _Job(
            number=number,
            kind=message.metadata.message_type,
            node=message.metadata.dst_node_id,
            group=message.metadata.group_id,
            config=config_of(message.content),
            layout=self._sent_layout,
        )

    def _send(self, message: Message, key: tuple[int, ...]) -> None:
        self._sent_layout = self._sent.write(bundle_of(message.content))
        self._sent_key = key
        # Held, so that no other record can come to have the same id.
        self._kept = list(arrays_in(message.content).values())

    def _take(self, worker: _Worker) -> list[Message]:
        """Return a worker's answers, none where it died and its work waits again."""
        try:
            answers, layout, seconds, first = worker.pipe.recv()
        except (EOFError, OSError):
            return self._died(worker)
        messages = [self._waiting.pop(number) for number in worker.jobs]
        worker.jobs = ()
        self.spent.add(worker.place, seconds, first)
        arrays = {name: clone(state) for name, state in worker.area.read(layout).items()}
        # Its area is read; it may go on before its answers are looked at.
        self._feed()
        return [
            _reply(message, done, {name: arrays[f"{place}/{name}"] for name in done.names})
            for place, (message, done) in enumerate(zip(messages, answers, strict=True))
        ]

    def _died(self, worker: _Worker) -> list[Message]:
        given_up = self._waiting.died([worker.jobs])
        code = self._replace(worker)
        if not given_up:
            log.warning("a worker died (exit code %s); its sites are run again", code)
        how = f"{MAX_WORKER_CRASHES} workers died of it (exit code {code})"
        told = f"{SiteFailedError.__name__}: {how}"
        return [
            Message(Error(100, told), reply_to=self._waiting.pop(number)) for number in given_up
        ]

    def _replace(self, worker: _Worker) -> int:
        """Fork a worker in place of one that has ended, and return how it ended."""
        _close(worker)
        self._pool[worker.place] = self._fork(worker.place)
        return int(worker.process.exitcode)

    def _fork(self, place: int) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        area = SharedArea("sums")
        others = [ours, *(worker.pipe for worker in self._pool)]
        parent = os.getpid()
        process = multiprocessing.get_context("fork").Process(
            target=self._work, args=(theirs, area, others, parent), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(place, process, ours, area)

    def _work(
        self, pipe: Connection, area: SharedArea, others: Sequence[Connection], parent: int
    ) -> None:
        kill_on_parent_exit(parent)
        # Ctrl-C reaches the whole group; the parent decides what becomes of its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for other in others:
            # A pipe of which nobody holds the parent's end tells a worker that its parent is gone.
            other.close()
        set_up_process()
        meter = self._inner.meter
        meter.take()  # the parent's, until the fork
        while True:
            try:
                jobs: list[_Job] = pipe.recv()
                arrays: Bundle = {}
                with meter.spent("messages"):
                    answers = [self._done(job, arrays, f"{n}/") for n, job in enumerate(jobs)]
                    layout = area.write(arrays)
                pipe.send((answers, layout, meter.take(), meter.first_training))
                # The next ones take the memory of these.
                del arrays
            except (EOFError, OSError):
                # The parent is gone, in whatever way its end of the pipe tells it.
                os._exit(0)

    def _done(self, job: _Job, arrays: Bundle, place: str) -> _Done:
        """Run a message, and add the answer's arrays to others under its place."""
        content = pack(self._sent.read(job.layout), config=job.config)
        reply = self._inner.answer_group(content, job.kind, job.node, job.group)
        if reply.has_error():
            return _Done(error=(reply.error.code, reply.error.reason or ""))
        found = bundle_of(reply.content)
        arrays.update({place + name: state for name, state in found.items()})
        return _Done(numbers_of(reply.content), config_of(reply.content), tuple(found))


def _reply(message: Message, done: _Done, arrays: Bundle) -> Message:
    if done.error:
        return Message(Error(*done.error), reply_to=message)
    return Message(pack(arrays, done.numbers, done.config), reply_to=message)


def can_fork() -> bool:
    """Return whether a process may be forked: on Linux, before CUDA has started."""
    return hasattr(os, "memfd_create") and not bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def check_fork() -> None:
    """Refuse to go on where a process cannot be forked.

    Raises:
        MissingError: it cannot.
    """
    if not can_fork():
        raise MissingError("workers need fork: a Linux on which CUDA has not yet started")


def _close(worker: _Worker) -> None:
    worker.process.join()
    worker.pipe.close()
    worker.area.close()

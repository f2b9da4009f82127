"""A forked process that runs arms and seeds, one after the other, as its parent asks."""

import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast

from flwr.serverapp import Grid

from fedrad.errors import FedradError
from fedrad.rounds.progress import ProgressCallback
from fedrad.rounds.scheduler import Run, RunArm
from fedrad.rounds.worker_time import WorkerTime, worker_time_of
from fedrad.simulation.parent_death import kill_on_parent_exit
from fedrad.training.process import set_up_process

__all__ = ["ArmFailed", "ArmProcess", "ArmTiming", "ProgressEvent"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProgressEvent:
    """What a run tells of its progress: a call of `ProgressCallback`, on its way to the parent."""

    name: str
    args: tuple[Any, ...]
    named: dict[str, Any]

    def to(self, progress: ProgressCallback) -> None:
        """Make the call."""
        getattr(progress, self.name)(*self.args, **self.named)


@dataclass(frozen=True)
class ArmTiming:
    """What a run that came to its end took.

    Args:
        workers: seconds of each by purpose.
        server: seconds of the server by purpose, none where it is the worker.
        first_training: when the first step began, in seconds since 1970.
    """

    workers: list[dict[str, float]]
    server: dict[str, float]
    first_training: float | None

    @classmethod
    def on(cls, grid: Grid) -> "ArmTiming":
        """Return what was run on a grid of ours so far."""
        spent = cast(WorkerTime, worker_time_of(grid))
        server = {} if spent.alone else dict(spent.server.seconds)
        return cls(spent.workers, server, spent.first_training or spent.server.first_training)


@dataclass(frozen=True)
class ArmFailed:
    """What a run raised."""

    error: Exception


class ArmProcess:
    """A process that runs arms and seeds, and the pipe to it.

    Args:
        first: number of its first worker among those of all processes.
        run_arm: runs an arm and seed on a grid.
        opened: opens such a grid, with its worker apart from the process or not.
        siblings: those that were forked before; it holds on to none of their pipes.
    """

    def __init__(
        self,
        first: int,
        run_arm: RunArm,
        opened: Callable[[bool], AbstractContextManager[Grid]],
        siblings: Sequence["ArmProcess"],
    ) -> None:
        self.first = first
        self.run: Run | None = None
        self._run_arm, self._opened, self._siblings = run_arm, opened, siblings
        self._fork()

    def begin(self, run: Run, *, apart: bool) -> None:
        """Have the process run an arm and seed."""
        self.run = run
        # One that died while it had nothing to do is met where its answer is awaited.
        with suppress(OSError):
            self.pipe.send((run, apart))

    def replace(self) -> int:
        """Fork a process in place of one that died, and return how that ended."""
        self.close()
        code = int(self.process.exitcode)
        self.run = None
        self._fork()
        return code

    def close(self) -> None:
        """End the process; its workers end with it."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _fork(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        ours = [self.pipe, *(one.pipe for one in self._siblings if one is not self)]
        # Not a daemon, which may have no workers of its own.
        self.process: Any = multiprocessing.get_context("fork").Process(
            target=self._work, args=(theirs, ours, os.getpid())
        )
        self.process.start()
        theirs.close()

    def _work(self, pipe: Connection, ours: Sequence[Connection], parent: int) -> None:
        kill_on_parent_exit(parent)
        # Ctrl-C reaches the whole group; the parent decides what becomes of its processes.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for end in ours:
            end.close()
        set_up_process()
        while True:
            try:
                run, apart = pipe.recv()
                pipe.send(self._answer(run, apart, pipe))
            except (EOFError, OSError):
                # The parent is gone, in whatever way its end of the pipe tells it.
                os._exit(0)

    def _answer(self, run: Run, apart: bool, pipe: Connection) -> ArmTiming | ArmFailed:
        try:
            with self._opened(apart) as grid:
                self._run_arm(run, grid, cast(ProgressCallback, _Teller(pipe)))
                return ArmTiming.on(grid)
        except Exception as error:
            if not isinstance(error, FedradError):
                # The traceback does not go through the pipe.
                log.exception("%s seed %d", *run)
            return ArmFailed(_sendable(error))


class _Teller:
    """Progress whose calls go through a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **named: self._pipe.send(ProgressEvent(name, args, named))


def _sendable(error: Exception) -> Exception:
    """Return an error, or its name and text where it does not survive a pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

"""Arms and seeds side by side: forked processes that each run one after the other.

Between rounds the sites of an arm wait for the slowest of them, pooled data are a single site, and
of four hospitals no more than four cores are ever busy. Arms and seeds have nothing in common but
the data: as many of them at the same time as keep the cores busy, each with workers of its own,
end with the same bits. A process that dies takes no other with it: its arm goes on from the last
round that was kept.
"""

import logging
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import wait

from flwr.serverapp import Grid

from fedrad.core.timing import PhaseTimer
from fedrad.rounds.progress import ProgressCallback
from fedrad.rounds.scheduler import Run, RunArm
from fedrad.rounds.worker_time import WorkerTime
from fedrad.simulation.arm_process import ArmFailed, ArmProcess, ArmTiming, ProgressEvent
from fedrad.simulation.message_queue import MAX_WORKER_CRASHES
from fedrad.simulation.worker_processes import check_fork

__all__ = ["ArmScheduler", "Phase", "plan_phases"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A part of the runs.

    Args:
        runs: how many.
        processes: how many of them are run at the same time.
        workers: each process has.
    """

    runs: int
    processes: int
    workers: int


@cache
def plan_phases(runs: int, workers: int, sites: int) -> tuple[Phase, ...]:
    """Return how runs are best shared out, taking all of them and all sites for equally long.

    Of ways that take the same time, more processes are better: they do not wait for one another.

    Args:
        runs: arms and seeds.
        workers: to be had in all.
        sites: of one run; more workers than sites have nothing to do.

    >>> plan_phases(5, workers=2, sites=4)
    (Phase(runs=4, processes=2, workers=1), Phase(runs=1, processes=1, workers=2))
    >>> plan_phases(5, workers=16, sites=4)
    (Phase(runs=5, processes=5, workers=3),)
    """

    def ways() -> Iterator[tuple[Phase, ...]]:
        for processes in range(1, min(runs, workers) + 1):
            each = min(workers // processes, sites)
            yield (Phase(runs, processes, each),)
            if rest := runs % processes:
                yield (Phase(runs - rest, processes, each), *plan_phases(rest, workers, sites))

    def cost(way: tuple[Phase, ...]) -> tuple[int, int, int]:
        turns = sum(-(-one.runs // one.processes) * -(-sites // one.workers) for one in way)
        return turns, -way[0].processes, len(way)

    return min(ways(), key=cost, default=())


def _killed(code: int) -> str:
    reason = f"{MAX_WORKER_CRASHES} processes died of it (exit code {code})"
    # What Linux does where memory is short, too.
    return reason + "; if memory is short, say fewer --workers" * (code == -signal.SIGKILL)


class ArmScheduler:
    """Runs runs side by side.

    Args:
        workers: in all.
        sites: of one run.
        grid: opens a grid of so many workers. Of one, that is the process which asks, unless its
            worker is to be apart from it.
        meter: what the grids' sites tell their time to.

    Raises:
        MissingError: a process cannot be forked.
    """

    def __init__(
        self,
        workers: int,
        sites: int,
        grid: Callable[[int, bool], AbstractContextManager[Grid]],
        meter: PhaseTimer,
    ) -> None:
        check_fork()
        self.spent = WorkerTime([{} for _ in range(workers)], PhaseTimer())
        self._workers, self._sites = workers, sites
        self._grid = grid
        self._meter = meter

    def run(
        self,
        runs: Sequence[Run],
        run_arm: RunArm,
        progress: ProgressCallback,
        given_up: Callable[[Run, str], None],
    ) -> None:
        """Run runs to their ends.

        Args:
            runs: those that cannot be spread over workers first.
            run_arm: runs one of them on a grid, and tells of its progress.
            progress: is told, in this process.
            given_up: is told which run has killed too many processes, and how.

        Raises:
            Exception: what `run_arm` raises; all other runs are stopped where they are.
        """
        left = list(runs)
        for stage in plan_phases(len(runs), self._workers, self._sites):
            now, left = left[: stage.runs], left[stage.runs :]
            opened = partial(self._opened, stage.workers)
            if stage.processes > 1:
                each = f"{stage.workers} worker{'s' if stage.workers > 1 else ''}"
                progress.note(f"{stage.processes} arms and seeds at a time, with {each} each")
                with ExitStack() as ends:
                    processes: list[ArmProcess] = []
                    for place in range(stage.processes):
                        first = place * stage.workers
                        processes.append(ArmProcess(first, run_arm, opened, processes))
                        ends.callback(processes[-1].close)
                    self._together(now, processes, progress, given_up)
                continue
            with opened(False) as grid:
                for run in now:
                    run_arm(run, grid, progress)
                self._add(0, ArmTiming.on(grid))

    def _together(
        self,
        runs: Sequence[Run],
        processes: Sequence[ArmProcess],
        progress: ProgressCallback,
        given_up: Callable[[Run, str], None],
    ) -> None:
        waiting, deaths = deque(runs), Counter[Run]()
        while True:
            for process in processes:
                if process.run is None and waiting:
                    run = waiting.popleft()
                    # With a worker apart it is told which site kills, and a quorum may go on.
                    process.begin(run, apart=deaths[run] > 0)
            busy = {process: process.run for process in processes if process.run}
            if not busy:
                return
            ready = wait([*(c.pipe for c in busy), *(c.process.sentinel for c in busy)])
            for process, run in busy.items():
                if process.pipe not in ready and process.process.sentinel not in ready:
                    continue
                try:
                    said = process.pipe.recv()
                except (EOFError, OSError):
                    code = process.replace()
                    deaths[run] += 1
                    if deaths[run] < MAX_WORKER_CRASHES:
                        name = f"{run[0]} seed {run[1]}"
                        log.warning("a process died (exit code %s) that ran %s", code, name)
                        waiting.appendleft(run)
                    else:
                        given_up(run, _killed(code))
                else:
                    self._heard(process, said, progress)

    def _heard(
        self,
        process: ArmProcess,
        said: ProgressEvent | ArmTiming | ArmFailed,
        progress: ProgressCallback,
    ) -> None:
        match said:
            case ProgressEvent():
                said.to(progress)
            case ArmTiming():
                self._add(process.first, said)
                process.run = None
            case ArmFailed():
                raise said.error

    def _opened(self, workers: int, apart: bool) -> AbstractContextManager[Grid]:
        self._meter.take()  # what was before
        return self._grid(workers, apart)

    def _add(self, first: int, took: ArmTiming) -> None:
        for place, seconds in enumerate(took.workers, start=first):
            self.spent.add(place, seconds, took.first_training)
        for purpose, value in took.server.items():
            self.spent.server.seconds[purpose] += value

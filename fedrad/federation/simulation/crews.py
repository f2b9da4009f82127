"""Arms and seeds side by side: forked processes that each play one after the other.

Between rounds the sites of an arm wait for the slowest of them, pooled data are a single site, and
of four hospitals no more than four cores are ever busy. Arms and seeds have nothing in common but
the data: as many of them at the same time as keep the cores busy, each with workers of its own,
end with the same bits. A crew that dies takes no other with it: its arm goes on from the last
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

from fedrad.core.meter import Meter
from fedrad.federation.scheduler import Play, Run
from fedrad.federation.simulation.crew import Crew, Failed, Told, Took
from fedrad.federation.simulation.waiting import DEATHS
from fedrad.federation.simulation.workers import check_fork
from fedrad.federation.spent import Spent
from fedrad.federation.watch import Progress

__all__ = ["Crews", "Stage", "stages"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A part of the runs.

    Args:
        runs: how many.
        crews: how many of them are played at the same time.
        workers: each crew has.
    """

    runs: int
    crews: int
    workers: int


@cache
def stages(runs: int, workers: int, sites: int) -> tuple[Stage, ...]:
    """Return how runs are best shared out, taking all of them and all sites for equally long.

    Of ways that take the same time, more crews are better: they do not wait for one another.

    Args:
        runs: arms and seeds.
        workers: to be had in all.
        sites: of one run; more workers than sites have nothing to do.

    >>> stages(5, workers=2, sites=4)
    (Stage(runs=4, crews=2, workers=1), Stage(runs=1, crews=1, workers=2))
    >>> stages(5, workers=16, sites=4)
    (Stage(runs=5, crews=5, workers=3),)
    """

    def ways() -> Iterator[tuple[Stage, ...]]:
        for crews in range(1, min(runs, workers) + 1):
            each = min(workers // crews, sites)
            yield (Stage(runs, crews, each),)
            if rest := runs % crews:
                yield (Stage(runs - rest, crews, each), *stages(rest, workers, sites))

    def cost(way: tuple[Stage, ...]) -> tuple[int, int, int]:
        turns = sum(-(-one.runs // one.crews) * -(-sites // one.workers) for one in way)
        return turns, -way[0].crews, len(way)

    return min(ways(), key=cost, default=())


def _killed(code: int) -> str:
    reason = f"{DEATHS} processes died of it (exit code {code})"
    # What Linux does where memory is short, too.
    return reason + "; if memory is short, say fewer --workers" * (code == -signal.SIGKILL)


class Crews:
    """Plays runs side by side.

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
        meter: Meter,
    ) -> None:
        check_fork()
        self.spent = Spent([{} for _ in range(workers)], Meter())
        self._workers, self._sites = workers, sites
        self._grid = grid
        self._meter = meter

    def play(
        self,
        runs: Sequence[Run],
        play: Play,
        progress: Progress,
        given_up: Callable[[Run, str], None],
    ) -> None:
        """Play runs to their ends.

        Args:
            runs: those that cannot be spread over workers first.
            play: plays one of them on a grid, and tells of its progress.
            progress: is told, in this process.
            given_up: is told which run has killed too many processes, and how.

        Raises:
            Exception: what `play` raises; all other runs are stopped where they are.
        """
        left = list(runs)
        for stage in stages(len(runs), self._workers, self._sites):
            now, left = left[: stage.runs], left[stage.runs :]
            opened = partial(self._opened, stage.workers)
            if stage.crews > 1:
                each = f"{stage.workers} worker{'s' if stage.workers > 1 else ''}"
                progress.note(f"{stage.crews} arms and seeds at a time, with {each} each")
                with ExitStack() as ends:
                    crews: list[Crew] = []
                    for place in range(stage.crews):
                        crews.append(Crew(place * stage.workers, play, opened, crews))
                        ends.callback(crews[-1].close)
                    self._together(now, crews, progress, given_up)
                continue
            with opened(False) as grid:
                for run in now:
                    play(run, grid, progress)
                self._add(0, Took.on(grid))

    def _together(
        self,
        runs: Sequence[Run],
        crews: Sequence[Crew],
        progress: Progress,
        given_up: Callable[[Run, str], None],
    ) -> None:
        waiting, deaths = deque(runs), Counter[Run]()
        while True:
            for crew in crews:
                if crew.run is None and waiting:
                    run = waiting.popleft()
                    # With a worker apart it is told which site kills, and a quorum may go on.
                    crew.begin(run, apart=deaths[run] > 0)
            busy = {crew: crew.run for crew in crews if crew.run}
            if not busy:
                return
            ready = wait([*(c.pipe for c in busy), *(c.process.sentinel for c in busy)])
            for crew, run in busy.items():
                if crew.pipe not in ready and crew.process.sentinel not in ready:
                    continue
                try:
                    said = crew.pipe.recv()
                except (EOFError, OSError):
                    code = crew.replace()
                    deaths[run] += 1
                    if deaths[run] < DEATHS:
                        name = f"{run[0]} seed {run[1]}"
                        log.warning("a process died (exit code %s) that played %s", code, name)
                        waiting.appendleft(run)
                    else:
                        given_up(run, _killed(code))
                else:
                    self._heard(crew, said, progress)

    def _heard(self, crew: Crew, said: Told | Took | Failed, progress: Progress) -> None:
        match said:
            case Told():
                said.to(progress)
            case Took():
                self._add(crew.first, said)
                crew.run = None
            case Failed():
                raise said.error

    def _opened(self, workers: int, apart: bool) -> AbstractContextManager[Grid]:
        self._meter.take()  # what was before
        return self._grid(workers, apart)

    def _add(self, first: int, took: Took) -> None:
        for place, seconds in enumerate(took.workers, start=first):
            self.spent.add(place, seconds, took.first_training)
        for purpose, value in took.server.items():
            self.spent.server.seconds[purpose] += value

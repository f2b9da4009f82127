"""How far a run is: a bar in a terminal, plain lines in a log.

Both displays take the calls of the run's driver: `start`, then for every arm and seed either
`skipped`, or `arm_started`, `round_done` ..., and `arm_done` or `arm_stopped`; arms may interleave.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from fedrad.core.names import listed
from fedrad.report.formatting import number, one_line
from fedrad.report.formatting import seconds as duration

__all__ = ["PlainProgress", "RichProgress", "make_progress"]

Key = tuple[str, int]  # arm, seed


class RichProgress:
    """A bar over all arms x seeds x rounds with the time left, and one for each that is run.

    Rounds that need not be run (skipped, resumed, stopped) leave the total instead of counting
    as done, so the time left is that of the rounds still to run.
    """

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            # On a narrow terminal its end is cut off, and nothing else is.
            TextColumn(
                "{task.fields[told]}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._rounds = 0
        self._left: dict[Key, int] = {}
        self._playing: dict[Key, TaskID] = {}
        self._missing: dict[Key, list[str]] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def start(self, arms: Sequence[str], seeds: Sequence[int], rounds: int) -> None:
        """Show the bar; its whole is every round of every arm and seed."""
        self._rounds = rounds
        self._left = {(arm, seed): rounds for arm in arms for seed in seeds}
        self._task = self._bar.add_task("all rounds", total=sum(self._left.values()), told="")

    def arm_started(self, arm: str, seed: int, first_round: int) -> None:
        """Say which arm runs; rounds before the first one were run by an earlier command."""
        # What was run by this command counts, also when a process that died begins again.
        to_play = self._rounds - first_round + 1
        self._drop((arm, seed), self._left.get((arm, seed), 0) - to_play)
        if first_round > 1:
            self.note(f"{_name(arm, seed)}: resumed at round {first_round}/{self._rounds}")
        self._forget((arm, seed))
        self._playing[arm, seed] = self._bar.add_task(
            one_line(_name(arm, seed)), total=self._rounds, completed=first_round - 1, told=""
        )

    def round_done(
        self,
        arm: str,
        seed: int,
        round: int,
        *,
        loss: float | None,
        value: float | None,
        seconds: float,
        missing: Sequence[str],
        pace: str = "",
    ) -> None:
        """Move on by one round; loss and value are means over the sites' validation images.

        The pace says how many workers there are, and how busy they were.
        """
        key = (arm, seed)
        if self._task is not None and self._left.get(key, 0) > 0:
            self._left[key] -= 1
            self._bar.advance(self._task)
        if (task := self._playing.get(key)) is not None:
            told = one_line(f"{_figures(loss, value)}  {pace}".strip())
            self._bar.update(task, told=told, completed=round)
        if list(missing) != self._missing.get(key, []):
            self._missing[key] = list(missing)
            self.note(_absence(arm, seed, round, missing))

    def arm_done(self, arm: str, seed: int, seconds: float) -> None:
        """Leave a line above the bar."""
        self._end((arm, seed))
        self.note(f"{_name(arm, seed)}: done in {duration(seconds)}")

    def arm_stopped(self, arm: str, seed: int, reason: str) -> None:
        """Leave a line with the reason above the bar."""
        self._end((arm, seed))
        self.note(f"{_name(arm, seed)}: stopped: {reason}")

    def skipped(self, arm: str, seed: int) -> None:
        """Leave a line above the bar: an earlier command has finished this arm."""
        self._end((arm, seed))
        self.note(f"{_name(arm, seed)}: finished before")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(Text(one_line(text)), highlight=False)

    def _drop(self, key: Key, rounds: int) -> None:
        gone = min(self._left.get(key, 0), rounds)
        if self._task is not None and gone > 0:
            self._left[key] -= gone
            task = self._bar.tasks[self._bar.task_ids.index(self._task)]
            self._bar.update(self._task, total=(task.total or 0) - gone)

    def _end(self, key: Key) -> None:
        self._drop(key, self._rounds)
        self._forget(key)

    def _forget(self, key: Key) -> None:
        if (task := self._playing.pop(key, None)) is not None:
            self._bar.remove_task(task)


class PlainProgress:
    """Plain lines without control characters: one a finished arm, and at most ten on its way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rounds = 0
        self._missing: dict[Key, list[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def start(self, arms: Sequence[str], seeds: Sequence[int], rounds: int) -> None:
        """Say how much there is to run."""
        self._rounds = rounds
        self.note(f"{len(arms)} arms x {len(seeds)} seeds x {rounds} rounds")

    def arm_started(self, arm: str, seed: int, first_round: int) -> None:
        """Say so where an arm goes on instead of beginning."""
        if first_round > 1:
            self.note(f"{_name(arm, seed)}: resumed at round {first_round}/{self._rounds}")

    def round_done(
        self,
        arm: str,
        seed: int,
        round: int,
        *,
        loss: float | None,
        value: float | None,
        seconds: float,
        missing: Sequence[str],
        pace: str = "",
    ) -> None:
        """Write a line at every tenth of the rounds, and when other sites are missing."""
        key = (arm, seed)
        if list(missing) != self._missing.get(key, []):
            self._missing[key] = list(missing)
            self.note(_absence(arm, seed, round, missing))
        tenths = 10 * round // max(self._rounds, 1)
        if tenths > 10 * (round - 1) // max(self._rounds, 1):
            took = f", {duration(seconds)} a round{', ' if pace else ''}{pace}"
            figures = _figures(loss, value)
            self.note(f"{_name(arm, seed)}: round {round}/{self._rounds}{figures}{took}")

    def arm_done(self, arm: str, seed: int, seconds: float) -> None:
        """Write a line."""
        self.note(f"{_name(arm, seed)}: done in {duration(seconds)}")

    def arm_stopped(self, arm: str, seed: int, reason: str) -> None:
        """Write a line with the reason."""
        self.note(f"{_name(arm, seed)}: stopped: {reason}")

    def skipped(self, arm: str, seed: int) -> None:
        """Write a line: an earlier command has finished this arm."""
        self.note(f"{_name(arm, seed)}: finished before")

    def note(self, text: str) -> None:
        """Write a line."""
        self._console.out(one_line(text), highlight=False)


def make_progress(console: Console) -> RichProgress | PlainProgress:
    """Return the display that fits: a bar for a terminal that can move its cursor, else lines."""
    return RichProgress(console) if console.is_interactive else PlainProgress(console)


def _name(arm: str, seed: int) -> str:
    return f"{arm} seed {seed}"


def _figures(loss: float | None, value: float | None) -> str:
    told = f"  loss {number(loss)}" if loss is not None else ""
    return told + (f"  validation {number(value)}" if value is not None else "")


def _absence(arm: str, seed: int, round: int, missing: Sequence[str]) -> str:
    who = f"no answer from {listed(missing)}" if missing else "all sites answer again"
    return f"{_name(arm, seed)}: round {round}: {who}"

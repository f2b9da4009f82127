"""Progress must be readable in a log file, and a bar must count only what is still to be played."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from fedrad.report.progress import PlainProgress, RichProgress, make_progress

ROUNDS = 40


def console(*, terminal: bool, width: int = 100) -> Console:
    """Return a console that writes to memory."""
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=width, _environ={"TERM": "xterm"}
    )


def last_picture(shown: Console) -> list[str]:
    """Return the lines that a terminal shows in the end, without colours."""
    assert isinstance(shown.file, io.StringIO)
    text = shown.file.getvalue().split("\x1b[2K")[-1]
    return [line.strip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()]


def text_of(progress: Any, shown: Console) -> str:
    """Play one arm whole, one resumed, one stopped, one skipped; return what is shown."""
    with progress:
        progress.start(["local", "fedavg"], [0, 1], ROUNDS)
        progress.arm_started("local", 0, 1)
        for number in range(1, ROUNDS + 1):
            play(progress, "local", 0, number)
        progress.arm_done("local", 0, 83.0)
        progress.arm_started("local", 1, 31)
        for number in range(31, ROUNDS + 1):
            play(progress, "local", 1, number, missing=["west"] if number in (33, 34) else [])
        progress.arm_done("local", 1, 21.0)
        progress.arm_started("fedavg", 0, 1)
        play(progress, "fedavg", 0, 1)
        progress.arm_stopped("fedavg", 0, "round 2: the loss is no finite number")
        progress.skipped("fedavg", 1)
        progress.note("see the report\x1b[2J")
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def play(
    progress: Any,
    arm: str,
    seed: int,
    number: int,
    missing: list[str] | None = None,
    pace: str = "",
) -> None:
    """Play one round; the first has no validation."""
    figure = None if number == 1 else 1 / number
    progress.round_done(
        arm, seed, number, loss=figure, value=figure, seconds=2.0, missing=missing or [], pace=pace
    )


def test_a_log_gets_few_lines_and_no_control_characters() -> None:
    """A redirected run of 40 rounds: ten lines on the way, the last round's too, one at the end."""
    shown = console(terminal=False)
    text = text_of(make_progress(shown), shown)
    assert all(c == "\n" or c.isprintable() for c in text)
    lines = text.splitlines()
    on_the_way = [line for line in lines if line.startswith("local seed 0: round")]
    assert len(on_the_way) == 10
    assert on_the_way[0] == "local seed 0: round 4/40  loss 0.250  validation 0.250, 2.0 s a round"
    assert on_the_way[-1].startswith("local seed 0: round 40/40  loss ")
    for line in (
        "2 arms x 2 seeds x 40 rounds",
        "local seed 0: done in 1 min 23 s",
        "local seed 1: resumed at round 31/40",
        "local seed 1: round 33: no answer from west",
        "local seed 1: round 35: all sites answer again",
        "fedavg seed 0: stopped: round 2: the loss is no finite number",
        "fedavg seed 1: finished before",
    ):
        assert lines.count(line) == 1


def test_the_bar_counts_only_rounds_that_are_to_be_played() -> None:
    """40 whole + 10 resumed + 1 before the stop; the 109 others left the total: 51 of 51."""
    shown = console(terminal=True)
    text = text_of(make_progress(shown), shown)
    assert "51/51" in text
    for words in (
        "no answer from west",
        "stopped: round 2",
        "finished before",
    ):
        assert words in text


def test_the_bar_says_where_the_run_is_and_how_it_learns() -> None:
    """What one looks for in passing: arm, round, loss; the last frame stays on the screen."""
    shown = console(terminal=True)
    with RichProgress(shown) as progress:
        progress.start(["fedavg"], [3], ROUNDS)
        progress.arm_started("fedavg", 3, 1)
        play(progress, "fedavg", 3, 2)
    last = last_picture(shown)[1]
    assert re.fullmatch(r"fedavg seed 3 \S+\s+2/40 left \S+ loss 0.500  validation 0.500", last)


def test_arms_that_are_played_at_the_same_time_have_a_line_each() -> None:
    """What has ended leaves the picture; on 80 columns loss and validation can still be read."""
    shown = console(terminal=True, width=80)
    with RichProgress(shown) as progress:
        progress.start(["fedavg", "centralized", "local"], [0], ROUNDS)
        for arm in ("fedavg", "centralized", "local"):
            progress.arm_started(arm, 0, 1)
            play(progress, arm, 0, 7, pace="1 worker, 12.3 sites/s, 91% training")
        progress.arm_done("local", 0, 3.0)
    total, one, other = last_picture(shown)[:3]
    assert total.split()[:2] == ["all", "rounds"] and " 3/81 " in total
    assert one.startswith("fedavg seed 0 ") and other.startswith("centralized seed 0 ")
    assert all("7/40" in line and "loss 0.143  validation 0.143" in line for line in (one, other))


def test_an_arm_that_begins_again_counts_the_rounds_that_are_left() -> None:
    """A process died in round 5 of 40, when four had been kept."""
    shown = console(terminal=True)
    with RichProgress(shown) as progress:
        progress.start(["fedavg"], [0], ROUNDS)
        progress.arm_started("fedavg", 0, 1)
        for number in range(1, 5):
            play(progress, "fedavg", 0, number)
        progress.arm_started("fedavg", 0, 5)
        for number in range(5, ROUNDS + 1):
            play(progress, "fedavg", 0, number)
        progress.arm_done("fedavg", 0, 3.0)
    assert " 40/40 " in last_picture(shown)[0]


def test_a_note_cannot_steer_the_terminal() -> None:
    """An error's text may come from a site."""
    shown = console(terminal=True)
    assert "\x1b[2J" not in text_of(RichProgress(shown), shown)


@pytest.mark.parametrize(("terminal", "kind"), [(True, RichProgress), (False, PlainProgress)])
def test_the_display_fits_the_console(terminal: bool, kind: type) -> None:
    """A bar in a log file is a thousand lines of escape codes."""
    assert isinstance(make_progress(console(terminal=terminal)), kind)


@pytest.mark.parametrize("kind", [RichProgress, PlainProgress])
def test_rounds_beyond_the_plan_do_no_harm(kind: Any) -> None:
    """An algorithm may play an extra round; the display must not stop the run."""
    shown = console(terminal=False)
    with kind(shown) as progress:
        progress.start(["fedavg"], [0], 1)
        progress.arm_started("fedavg", 0, 1)
        play(progress, "fedavg", 0, 1)
        play(progress, "fedavg", 0, 2)
        progress.arm_done("fedavg", 0, 1.0)
        progress.skipped("unknown", 7)
    assert "unknown seed 7" in shown.file.getvalue()

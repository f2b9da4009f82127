"""The terminal's tables must fit 100 columns, need no colour, and claim no more than the page."""

import io
from pathlib import Path
from typing import Any

import pytest
from example_results import DIVERGED, FEW, SITES, example
from rich.console import Console

from fedrad.report.tables import results_tables


def printed(results: Any, *, colour: bool = False, width: int = 100) -> str:
    """Return what a console of a width shows."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
    )
    for part in results_tables(results, page=Path("runs/x/report.html")):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_fits_in_100_columns() -> None:
    """The width of a terminal beside an editor; a wrapped table cannot be read."""
    results = example()
    text = printed(results)
    assert max(map(len, text.splitlines())) <= 100
    assert "\u2026" not in text, "something was cut off"
    for arm in results["arms"]:
        assert arm["name"] in text
    for words in (*SITES, DIVERGED, FEW, "runs/x/report.html", "collapsed", "stopped"):
        assert words in text


def test_verdicts_are_words_and_need_no_colour() -> None:
    """fedadam is worse at three sites, and west has too few patients for any verdict."""
    text = printed(example())
    assert "\x1b" not in text
    own = text[text.index("Against the model") :]
    assert own.count("worse") == 3
    assert own.count("not shown") == 2 + 5


def test_bold_stands_only_where_an_interval_excludes_zero() -> None:
    """In a terminal, bold is the escape code 1."""
    results = example()
    assert "\x1b[1;" in printed(results, colour=True) or "\x1b[1m" in printed(results, colour=True)
    for told in results["comparisons"]:
        told["difference"].update(low=-1.0, high=1.0)
    for arm in results["arms"]:
        for row in arm["beats_own_model"]:
            row["difference"].update(low=-1.0, high=1.0)
    text = printed(results, colour=True)
    assert "\x1b[1;" not in text and "\x1b[1m" not in text


@pytest.mark.parametrize("name", ["[bold red]x[/]", "x\x1b[2Jy", "x\ny"])
def test_a_name_can_neither_style_nor_steer_the_terminal(name: str) -> None:
    """Site and arm names come from others: markup is text, and control characters are replaced."""
    results = example()
    for arm in results["arms"]:
        for row in arm["beats_own_model"]:
            row["site"] = name if row["site"] == "nord" else row["site"]
    text = printed(results, width=140)
    assert "\x1b" not in text
    assert name.replace("\x1b", "\ufffd").replace("\n", "\ufffd") in text


def test_a_run_without_comparisons_has_tables_too() -> None:
    """One arm alone: no opponent, no per-site table."""
    results = example() | {"comparisons": [], "headline": []}
    results["arms"] = results["arms"][:1]
    results["experiment"]["primary"] = None
    text = printed(results)
    assert "nothing to compare" in text and "minus" not in text

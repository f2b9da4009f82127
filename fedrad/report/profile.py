"""Where the workers' time went, as a table of `profile.json`."""

import json
from collections.abc import Mapping

from rich.table import Table

from fedrad.core.timing import PURPOSES
from fedrad.runs import RunFolder

__all__ = ["profile_table"]

_COLUMNS = (*PURPOSES, "idle")


def profile_table(folder: RunFolder) -> Table:
    """Return a row a worker, in seconds and shares of the time that the runtime was up.

    The server's half has a row of its own where it runs in another process than the workers. There
    only its sums are told apart; while it reads, checks and writes, workers are idle.
    """
    found = json.loads((folder.path / "profile.json").read_text(encoding="utf-8"))
    passed = found["seconds"]
    table = Table(
        title=f"Time of {len(found['workers'])} workers in {passed:.1f} s: "
        f"{found['efficiency']:.0%} in training steps",
        title_justify="left",
    )
    table.add_column("")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for number, worker in enumerate(found["workers"], start=1):
        table.add_row(f"worker {number}", *(_cell(worker, name, passed) for name in _COLUMNS))
    if not found["server"].get("training"):
        sums = _cell(found["server"], "aggregation", passed)
        table.add_row("server", *(sums if name == "aggregation" else "" for name in _COLUMNS))
    return table


def _cell(seconds: Mapping[str, float], name: str, passed: float) -> str:
    value = seconds.get(name, 0.0)
    return f"{value:.2f} s {value / passed:.0%}"

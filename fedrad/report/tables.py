"""A run's results for a terminal: the headline, the arms, and each site against its own model.

Readable in 100 columns and without colour: every verdict is a word. Bold stands only on
differences whose interval excludes zero, and on none of a single training.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fedrad.core.names import listed
from fedrad.report.arm_panels import (
    comparison_with,
    estimate_of,
    main_metric,
    partitioned,
    primary_of,
)
from fedrad.report.differences import NO_COMPARISON, ONE_TRAINING
from fedrad.report.formatting import (
    FormattedValue,
    ResultsJson,
    cell,
    marks,
    one_line,
    seconds,
    size,
)
from fedrad.report.many_sites import ONE_BY_ONE
from fedrad.report.participation import took_part
from fedrad.report.plan import budgets_differ
from fedrad.report.record import time_of
from fedrad.report.reseeding import beside_arms, beside_sites

__all__ = ["results_tables"]


COLOURS = {"better": "blue", "worse": "dark_orange3", "": ""}
VERDICTS = ("better", "not shown", "worse")
ARMS_A_TABLE = 4  # of the per-site tables: as many as 100 columns hold


def results_tables(results: ResultsJson, *, page: Path | None = None) -> list[RenderableType]:
    """Return what a terminal shows of a run, in the order to print it.

    Args:
        results: what results.json holds (schema 1).
        page: where the report page lies; its path becomes the last line.
    """
    parts: list[RenderableType] = [_headline(results), "", _arms(results)]
    parts.extend(_footnotes(_arm_marks(results)))
    parts.extend(_beside(beside_arms(results)))
    parts.extend(_troubles(results))
    parts.extend(Text(one_line(sentence)) for sentence in [*_steps(results), *took_part(results)])
    if max(map(len, _own(results).values()), default=0) > ONE_BY_ONE:
        parts.extend(["", _tallies(results)])
    else:
        for table in _sites(results):
            parts.extend(["", table])
        parts.extend(_footnotes(marks(_own(results))))
    parts.extend(_beside(beside_sites(results)))
    if page is not None:
        parts.extend(["", Text.assemble("The whole report: ", one_line(page))])
    return parts


def _headline(results: ResultsJson) -> Text:
    lines = results["headline"] or [f"{results['experiment']['name']}: nothing to compare yet."]
    return Text("\n".join(one_line(line) for line in lines))


def _arms(results: ResultsJson) -> Table:
    metric, against = main_metric(results), primary_of(results).get("against")
    letters = _arm_marks(results)
    table = _table(
        f"{one_line(metric['title'])}, each site on its own test patients, 95% intervals"
    )
    table.add_column("arm", overflow="fold", max_width=16)
    titles = dict(_columns(results))
    for title in titles.values():
        table.add_column(title, justify="right", overflow="fold")
    if against is not None:
        table.add_column(f"minus {one_line(against)}", justify="right", overflow="fold")
    key, called = time_of(results["arms"])
    for title in ("sent", "train" if key == "training_seconds" else called):
        table.add_column(title, justify="right", no_wrap=True)
    for arm in results["arms"]:
        columns = [estimate_of(arm, metric["name"], key) for key in titles]
        row = [_value(cell(estimate, letters)) for estimate in columns]
        if against is not None:
            row.append(_difference(results, arm["name"], letters))
        traffic = [v for v in arm["bytes"].values() if v is not None]
        sent = size(sum(traffic)) if traffic else size(None)
        table.add_row(_name(arm), *row, sent, seconds(arm.get(key)))
    return table


def _columns(results: ResultsJson) -> Iterator[tuple[str, str]]:
    """Yield the columns of the arms' table: keys of an arm's columns, and titles."""
    yield "mean", "mean over sites"
    # Of sites that were dealt out artificially nobody asks for one alone, but for all of them.
    if partitioned(results):
        yield "pooled", "all test images"
    yield "worst", "worst site"


def _steps(results: ResultsJson) -> list[str]:
    """Return how many gradient steps each arm took, where they differ."""
    return [results["experiment"]["budget"]] if budgets_differ(results["arms"]) else []


def _difference(results: ResultsJson, arm: str, letters: Mapping[str, str]) -> Text:
    found = comparison_with(results, arm)
    if found is None:
        return Text("reference" if arm == primary_of(results)["against"] else "")
    higher = main_metric(results)["higher_is_better"]
    supported = bool(found["supported"])
    return _value(
        cell(
            found["difference"],
            letters,
            signed=True,
            higher_is_better=higher,
            supported=supported,
        )
    )


def _sites(results: ResultsJson) -> Iterator[Table]:
    """Yield the tables of sites x arms: is the arm better than the site's own model?"""
    own = _own(results)
    letters = marks(own)
    higher = main_metric(results)["higher_is_better"]
    sites = dict.fromkeys(site for rows in own.values() for site in rows)
    for i in range(0, len(own), ARMS_A_TABLE):
        names = list(own)[i : i + ARMS_A_TABLE]
        table = _table("" if i else "Against the model that each site trains alone")
        table.add_column("site", overflow="fold", max_width=16)
        for name in names:
            table.add_column(one_line(name), overflow="fold")
        for site in sites:
            cells = [_verdict(own[name].get(site), letters, higher) for name in names]
            table.add_row(Text(one_line(site)), *cells)
        yield table


def _tallies(results: ResultsJson) -> Table:
    """Return at how many sites each arm is better than the site's own model, and where worse."""
    own = _own(results)
    table = _table(
        f"Against the model that each of {max(map(len, own.values()))} sites trains alone"
    )
    for title in ("arm", *VERDICTS, "worse at"):
        table.add_column(title, overflow="fold", justify="right" if title in VERDICTS else "left")
    for arm, rows in own.items():
        if any(row["verdict"] == ONE_TRAINING for row in rows.values()):
            table.add_row(Text(one_line(arm)), "", "", "", Text("one training of each: no verdict"))
            continue
        counts = Counter(row["verdict"] for row in rows.values())
        missed = counts[NO_COMPARISON]
        if missed == len(rows):
            table.add_row(Text(one_line(arm)), "", "", "", Text(NO_COMPARISON))
            continue
        told = [Text(f"{counts[v]}", style=COLOURS.get(v, "")) for v in VERDICTS]
        worse = [site for site, row in rows.items() if row["verdict"] == "worse"]
        rest = f"{'; ' if worse else ''}{NO_COMPARISON} at {missed}" if missed else ""
        table.add_row(Text(one_line(arm)), *told, Text(one_line(listed(worse)) + rest))
    return table


def _own(results: ResultsJson) -> dict[str, dict[str, Any]]:
    return {
        arm["name"]: {row["site"]: row for row in arm["beats_own_model"]}
        for arm in results["arms"]
        if arm["beats_own_model"]
    }


def _verdict(row: Any, letters: Mapping[str, str], higher: bool) -> Text:
    if row is None:
        return Text("")
    found = cell(row["difference"], letters, signed=True, higher_is_better=higher)
    word = Text(row["verdict"], style=COLOURS[found.tone])
    return Text("\n").join([word, _value(found)])


def _value(found: FormattedValue) -> Text:
    """Return a value, its footnote's letter, its site, and its interval on a second line."""
    style = f"{'bold ' if found.shown else ''}{COLOURS[found.tone]}".strip()
    text = Text.assemble((found.text, style), f" {found.mark}" if found.mark else "")
    if found.where:
        text.append(f" {one_line(found.where)}")
    if found.interval:
        text.append(f"\n{found.interval}", style="dim")
    return text


def _name(arm: ResultsJson) -> Text:
    state = arm["status"] if arm["status"] != "finished" else "collapsed" if arm["collapse"] else ""
    text = Text(one_line(arm["name"]))
    return text.append(f"\n{state}", style=COLOURS["worse"]) if state else text


def _troubles(results: ResultsJson) -> Iterator[Text]:
    for arm in results["arms"]:
        for reason in (arm["reason"], arm["collapse"]):
            if reason:
                yield Text(f"{one_line(arm['name'])}: {one_line(reason)}", style=COLOURS["worse"])


def _arm_marks(results: ResultsJson) -> dict[str, str]:
    metric = main_metric(results)["name"]
    shown: list[Any] = [
        estimate_of(arm, metric, key) for arm in results["arms"] for key, _ in _columns(results)
    ]
    shown += [(comparison_with(results, arm["name"]) or {}) for arm in results["arms"]]
    return marks(shown)


def _beside(told: str | None) -> Sequence[Text]:
    return [Text(one_line(told), style="dim")] if told else []


def _footnotes(letters: Mapping[str, str]) -> Sequence[Text]:
    return [Text(f"{mark}  {one_line(reason)}", style="dim") for reason, mark in letters.items()]


def _table(title: str) -> Table:
    return Table(
        title=Text(title) if title else None,
        title_justify="left",
        title_style="",
        header_style="dim",
        box=None,
        pad_edge=False,
        padding=(0, 3, 0, 0),
    )

"""The page's section on cut networks: what each cut moves, asks of a site, and reaches."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fedrad.report.arm_panels import estimate_of, main_metric
from fedrad.report.figures import AxisScale, scale_of, tag
from fedrad.report.formatting import ResultsJson, cell, marks, number, seconds, size
from fedrad.report.leakage_panel import worst
from fedrad.report.record import time_of

__all__ = ["trade_off"]


WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 48, 150, 12, 40
LETTER, LINE = 6.5, 13
"""A letter's width and a line's height, as drawn: no text may lie over another."""

WAYS = ("up", "down")

PlotBox = tuple[float, float, float]
"""A text's left and right end, and the line that it stands on."""


def trade_off(results: ResultsJson) -> dict[str, Any] | None:
    """Return the rows and the plot of a run in which a network is cut, None of any other.

    Arms that pool the data, or exchange nothing, are in the rows and not in the plot.
    """
    if not any(arm.get("split") for arm in results["arms"]):
        return None
    metric = main_metric(results)
    letters = marks([estimate_of(arm, metric["name"], "mean") for arm in results["arms"]])
    rounds = results["experiment"]["rounds"]
    time, called = time_of(results["arms"])
    rows = [_row(arm, metric["name"], rounds, time) for arm in results["arms"]]
    for row in rows:
        row["cell"] = cell(row["estimate"], letters)
    return {
        "rows": rows,
        "time": called,
        "leakage": any(arm.get("leakage") for arm in results["arms"]),
        "svg": _plot([row for row in rows if row["moved"]], metric["title"]),
    }


def _row(arm: ResultsJson, metric: str, rounds: int, time: str) -> dict[str, Any]:
    cut = arm.get("split")
    moved = arm.get("bytes") or {}
    total = (moved.get("up") or 0) + (moved.get("down") or 0)
    exchanges = total > 0 and not arm.get("pooled")
    return {
        "name": arm["name"],
        "cut": f"after {cut['cut']}" if cut else "",
        "estimate": estimate_of(arm, metric, "mean"),
        "image": _both(cut["image_bytes"]) if cut else "",
        "round": _both({way: moved[way] / rounds for way in WAYS}) if exchanges else "",
        "moved": total / rounds if exchanges else 0.0,
        "share": cut["site_share"] if cut else 1.0,
        "share_told": number(100 * cut["site_share"], digits=1) + " %" if cut else "100 %",
        "weights": f"{cut['parameters']['site']:,}" if cut else "",
        "seconds": seconds(arm.get(time)),
        "leaks": worst(arm.get("leakage")),
    }


def _both(moved: Mapping[str, float]) -> str:
    """Return bytes up and down, once where they read the same."""
    return " / ".join(dict.fromkeys(size(moved[way]) for way in WAYS))


def _plot(rows: Sequence[Mapping[str, Any]], title: str) -> Markup:
    """Return the plot: bytes of a round on a logarithmic axis, the metric upwards."""
    shown = [row for row in rows if (row["estimate"] or {}).get("value") is not None]
    across = scale_of((math.log10(row["moved"]) for row in shown), pad=0.08)
    up = scale_of(row["estimate"].get(key) for row in shown for key in ("value", "low", "high"))
    parts = [*_grid(across, up, title)]
    taken: list[PlotBox] = []
    for row in shown:
        parts.extend(_mark(row, across, up, taken))
    return tag(
        "svg",
        Markup("").join(parts),
        class_="panel wide",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title} of each arm against the bytes that a round moves",
    )


def _mark(
    row: Mapping[str, Any], across: AxisScale, up: AxisScale, taken: list[PlotBox]
) -> Iterable[Markup]:
    estimate = row["estimate"]
    x, y = _x(math.log10(row["moved"]), across), _y(estimate["value"], up)
    low, high = estimate.get("low"), estimate.get("high")
    if low is not None and high is not None:
        yield tag("line", class_="whisker", x1=x, x2=x, y1=_y(low, up), y2=_y(high, up))
    told = tag("title", f"{row['name']}: {row['share_told']} of the operations at the site")
    # The area grows with the site's share of the work.
    radius = round(2.5 + 5.5 * math.sqrt(row["share"]), 2)
    yield tag("circle", told, class_="point", cx=x, cy=y, r=radius)
    beside = _free(x + radius + 3, y + 4, row["name"], taken)
    if beside != y + 4:
        yield tag("line", class_="axis", x1=x, y1=y, x2=x + radius + 2, y2=beside - 4)
    yield tag("text", row["name"], class_="tick", x=x + radius + 3, y=beside)


def _free(x: float, y: float, text: str, taken: list[PlotBox]) -> float:
    """Return the nearest line to y where a text lies over no other, and take it."""
    ends = x + len(text) * LETTER
    for step in range(2 * len(taken) + 1):
        line = y + (step + 1) // 2 * (LINE if step % 2 else -LINE)
        inside = TOP + LINE <= line <= HEIGHT - BOTTOM
        if inside and not any(_over(x, ends, line, box) for box in taken):
            break
    taken.append((x, ends, line))
    return line


def _over(x: float, ends: float, line: float, box: PlotBox) -> bool:
    left, right, other = box
    return x < right and left < ends and abs(line - other) < LINE


def _grid(across: AxisScale, up: AxisScale, title: str) -> Iterable[Markup]:
    for value in up.ticks(6):
        y = _y(value, up)
        yield tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
        text = number(value, digits=2)
        yield tag("text", text, class_="tick", x=LEFT - 6, y=y + 4, text_anchor="end")
    first, last = math.ceil(across.low), math.floor(across.high)
    steps = [(power, times) for power in range(first - 1, last + 1) for times in (1, 2, 5)]
    for place, count in ((p + math.log10(t), t * 10.0**p) for p, t in steps):
        if across.low <= place <= across.high:
            x = _x(place, across)
            yield tag("line", class_="axis", x1=x, x2=x, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 5)
            label = size(count)
            y = HEIGHT - BOTTOM + 18
            yield tag("text", label, class_="tick", x=x, y=y, text_anchor="middle")
    yield tag("text", "bytes of a round, up and down", class_="tick", x=LEFT, y=HEIGHT - 4)
    yield tag("text", title, class_="tick", x=LEFT + 4, y=TOP + 4)


def _x(value: float, scale: AxisScale) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * scale.at(value) / 100, 2)


def _y(value: float, scale: AxisScale) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - scale.at(value) / 100), 2)

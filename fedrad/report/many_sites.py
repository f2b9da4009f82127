"""Where there are more sites than a reader can go through: how they are spread, in their place.

Up to `ONE_BY_ONE` sites the report shows each. Beyond, charts show all of them at once, tables say
where the lowest tenth, the median and the highest tenth are, and a folded list holds the names.
Every site is in results.json, however many there are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from fedrad.report.arm_statistics import OWN
from fedrad.report.figures import AxisScale, CurveLine, axis, curves, scale_of, tag
from fedrad.report.formatting import EstimateJson, ResultsJson, TemplatePart, number, percent, tone

__all__ = [
    "LISTED",
    "ONE_BY_ONE",
    "across_sites",
    "caterpillar",
    "curves_over_sites",
    "sites_in_short",
    "spread",
]


ONE_BY_ONE = 24
LISTED = 200
"""Rows of a folded list, at most."""

_DRAWN = 400
_TENTHS = (0.1, 0.5, 0.9)


def caterpillar(
    differences: Mapping[str, EstimateJson], scale: AxisScale, *, higher_is_better: bool
) -> TemplatePart:
    """Return all sites' differences below one another, sorted, without their names.

    Args:
        differences: site -> arm minus the site's own model.
        scale: as for `interval_row`.
        higher_is_better: of the metric.

    Returns:
        "svg", and "height" in pixels; of more than 400 sites, evenly picked ones are drawn, the
        two ends among them.
    """
    known = [(site, found) for site, found in differences.items() if found["value"] is not None]
    known.sort(key=lambda pair: (pair[1]["value"], pair[0]), reverse=higher_is_better)
    drawn = _picked(known)
    parts = [tag("line", class_="reference", x1=f"{scale.at(0)}%", x2=f"{scale.at(0)}%",
                 y1="0%", y2="100%")]  # fmt: skip
    for place, (site, found) in enumerate(drawn):
        y = f"{100 * (place + 0.5) / len(drawn):.3f}%"
        shade = tone(found, higher_is_better=higher_is_better)
        told = tag("title", f"{site} {number(found['value'], signed=True)}")
        parts.append(tag("g", Markup("").join([told, *_thin(found, scale, shade, y)])))
    svg = tag("svg", Markup("").join(parts), class_="row crowd", aria_hidden="true")
    return {"svg": svg, "height": max(60, min(460, 5 * len(drawn))), "drawn": len(drawn)}


def across_sites(results: ResultsJson) -> TemplatePart | None:
    """Return for each arm how its values are spread over the sites' own test patients.

    What the matrix shows where there are few sites: a shared model at each of them, each site's
    own model at home, and either at the sites that were held out.
    """
    matrix = results.get("matrix")
    if not matrix or len(matrix["columns"]) <= ONE_BY_ONE:
        return None
    places = {head["site"]: i for i, head in enumerate(matrix["columns"]) if not head["held_out"]}
    found: dict[tuple[str, str], list[float | None]] = {}
    for row in matrix["rows"]:
        everywhere = row["model"] in ("global", OWN)
        met = places.values() if everywhere else [places[row["model"]]]
        models = "one model for all" if row["model"] == "global" else "own models"
        values = found.setdefault((row["arm"], models), [])
        values.extend(row["cells"][place]["value"] for place in met)
    for arm in results["arms"]:
        outside = (arm.get("external") or {}).get(matrix["metric"]) or {}
        if outside:
            found[arm["name"], "at held-out sites"] = [one["value"] for one in outside.values()]
    scale = scale_of(value for values in found.values() for value in values)
    return {
        "metric": next(m for m in results["metrics"] if m["name"] == matrix["metric"]),
        "count": len(places),
        "axis": axis(scale),
        "rows": [
            {
                "arm": arm,
                "models": models,
                "svg": _strip(values, scale),
                "tenths": [number(value) for value in _quantiles(values)],
                "undefined": sum(value is None for value in values),
            }
            for (arm, models), values in found.items()
        ],
    }


def curves_over_sites(arms: Sequence[Any], key: str, last: float) -> list[TemplatePart]:
    """Return panels of learning curves: the sites' lowest tenth, median and highest tenth.

    Args:
        arms: those that have curves, in the order of the legend.
        key: "value" or "loss".
        last: the last round.
    """
    rounds = [_by_round(arm["curves"].values(), key) for arm in arms]
    lines = [
        {n: _quantiles(values) for n, values in sorted(by_round.items())} for by_round in rounds
    ]
    scale = scale_of(v for line in lines for tenths in line.values() for v in tenths)
    panels = []
    for place, name in enumerate(("The sites' lowest tenth", "Median site", "Highest tenth")):
        drawn = [
            CurveLine(arm["name"], i, list(line), [tenths[place] for tenths in line.values()])
            for i, (arm, line) in enumerate(zip(arms, lines, strict=True))
            if line
        ]
        ends = ", ".join(f"{line.name} {number(line.values[-1])}" for line in drawn)
        svg = curves(drawn, scale, rounds=last, label=f"{name}, at round {last}: {ends}")
        panels.append({"site": name, "svg": svg})
    return panels if any(lines) else []


def sites_in_short(
    sites: Sequence[Any], shares: Mapping[str, Mapping[str, float]]
) -> list[TemplatePart]:
    """Return what the sites hold: least, lowest tenth, median, highest tenth and most.

    Args:
        sites: entries of "sites" in the results.
        shares: site -> label -> share of the images with it.
    """
    counts = {"Patients": [sum(site["patients"].values()) for site in sites]}
    for split, title in (("train", "Training"), ("val", "Validation"), ("test", "Test")):
        counts[f"{title} images"] = [site["images"].get(split, 0) for site in sites]
    rows = [spread(name, values, lambda value: f"{value:,.0f}") for name, values in counts.items()]
    labels = dict.fromkeys(label for share in shares.values() for label in share)
    for label in labels:
        held = [share[label] for share in shares.values() if label in share]
        rows.append(spread(f"{label}, share", held, percent))
    return rows


def _thin(found: EstimateJson, scale: AxisScale, shade: str, y: str) -> Iterable[Markup]:
    """Yield an interval and its point without caps, which are too large where rows are thin."""
    low, high = found["low"], found["high"]
    if low is not None and high is not None:
        ends = {"x1": f"{scale.at(low)}%", "x2": f"{scale.at(high)}%"}
        yield tag("line", class_=f"whisker {shade}".strip(), y1=y, y2=y, **ends)
    hollow = " hollow" if low is None else ""
    style = f"point{hollow} {shade}".strip()
    yield tag("circle", class_=style, cx=f"{scale.at(found['value'])}%", cy=y, r=1.8)


def _picked(items: Sequence[Any]) -> list[Any]:
    if len(items) <= _DRAWN:
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, _DRAWN)]


def _strip(values: Iterable[float | None], scale: AxisScale) -> Markup:
    known = [value for value in values if value is not None]
    if not known:
        return tag("svg", class_="row strip", aria_hidden="true")
    low, middle, high = (scale.at(value) for value in np.quantile(known, _TENTHS).tolist())
    parts = [tag("rect", class_="most", x=f"{low}%", width=f"{high - low}%", y="22%", height="56%")]
    for value in _picked(sorted(known)):
        x = f"{scale.at(value)}%"
        parts.append(tag("line", class_="site", x1=x, x2=x, y1="30%", y2="70%"))
    x = f"{middle}%"
    parts.append(tag("line", class_="median", x1=x, x2=x, y1="12%", y2="88%"))
    return tag("svg", Markup("").join(parts), class_="row strip", aria_hidden="true")


def _quantiles(values: Iterable[float | None]) -> list[float | None]:
    known = [value for value in values if value is not None]
    return list(np.quantile(known, _TENTHS).tolist()) if known else [None] * len(_TENTHS)


def _by_round(found: Iterable[Any], key: str) -> dict[int, list[float | None]]:
    by_round: dict[int, list[float | None]] = {}
    for curve in found:
        for n, value in zip(curve["round"], curve.get(key) or [], strict=False):
            by_round.setdefault(n, []).append(value)
    return {n: v for n, v in by_round.items() if any(value is not None for value in v)}


def spread(name: str, values: Sequence[float], write: Callable[[float], str]) -> TemplatePart:
    """Return a row that says where the least, the tenths, the median and the most of values are.

    >>> spread("images", [1, 2, 3, 4, 5], "{:.1f}".format)["cells"]
    ['1.0', '1.4', '3.0', '4.6', '5.0']
    """
    return {"name": name, "cells": [write(v) for v in np.quantile(values, (0, *_TENTHS, 1))]}

"""What lies behind the page's numbers: the matrix, the learning curves, the sites and the costs."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from fedrad.report.arm_statistics import OWN
from fedrad.report.figures import CurveLine, curves, scale_of, swatch
from fedrad.report.formatting import (
    BLANK,
    FormattedValue,
    ResultsJson,
    TemplatePart,
    cell,
    marks,
    number,
    percent,
    seconds,
    size,
)
from fedrad.report.many_sites import LISTED, ONE_BY_ONE, curves_over_sites, sites_in_short
from fedrad.report.record import time_of

__all__ = ["costs", "distances", "heat_map", "learning", "who_took_part"]


def heat_map(results: ResultsJson) -> TemplatePart | None:
    """Return the model x test site matrix; the better a value, the deeper its colour.

    None where it has more columns than a reader can go through; see `many.across_sites`.
    """
    matrix = results.get("matrix")
    if not matrix or not matrix["rows"] or len(matrix["columns"]) > ONE_BY_ONE:
        return None
    metric = next(m for m in results["metrics"] if m["name"] == matrix["metric"])
    values = [c["value"] for row in matrix["rows"] for c in row["cells"]]
    known = [v for v in values if v is not None] or [0.0]
    letters = marks(matrix["rows"])
    groups = []
    for title, rows in groupby(matrix["rows"], key=_group):
        groups.append(
            {
                "title": title,
                "rows": [
                    {
                        "name": row["arm"] if row["model"] in ("global", OWN) else row["model"],
                        "cells": [
                            {
                                "cell": cell(c, letters),
                                "depth": _depth(c["value"], known, metric["higher_is_better"]),
                                "own": row["model"] == head["site"]
                                or (row["model"] == OWN and not head["held_out"]),
                                "held_out": head["held_out"],
                            }
                            for head, c in zip(matrix["columns"], row["cells"], strict=True)
                        ],
                    }
                    for row in rows
                ],
            }
        )
    worst, best = min(known), max(known)
    if not metric["higher_is_better"]:
        worst, best = best, worst
    return {
        "metric": metric,
        "columns": matrix["columns"],
        "groups": groups,
        "letters": letters,
        "ends": (number(worst), number(best)),
        "held_out": any(c["held_out"] for c in matrix["columns"]),
    }


def learning(results: ResultsJson) -> TemplatePart | None:
    """Return small multiples of the learning curves: one panel a site, one line an arm.

    Of many sites, panels of the lowest tenth, the median and the highest tenth.
    """
    arms = [a for a in results["arms"] if a.get("curves")]
    sites = dict.fromkeys(site for a in arms for site in a["curves"])
    if not sites:
        return None
    last = max(r for a in arms for c in a["curves"].values() for r in c["round"])
    return {
        "legend": [{"name": a["name"], "svg": swatch(i)} for i, a in enumerate(arms)],
        "panels": {
            key: curves_over_sites(arms, key, last)
            if len(sites) > ONE_BY_ONE
            else [
                {"site": site, "svg": _panel(arms, site, key, last)}
                for site in sites
                if any(_points(a, site, key) for a in arms)
            ]
            for key in ("value", "loss")
        },
    }


def who_took_part(results: ResultsJson) -> TemplatePart:
    """Return the sites: how many patients and images, and how often each label is positive."""
    most = max((sum(s["images"].values()) for s in results["sites"]), default=1) or 1
    labels: dict[str, None] = {}
    rows = []
    shares = {s["name"]: _shares(results, s) for s in results["sites"]}
    for site in shares.values():
        labels.update(dict.fromkeys(site))
    for site in results["sites"][:LISTED]:
        images = site["images"]
        share = shares[site["name"]]
        rows.append(
            {
                "name": site["name"],
                "held_out": site["held_out"],
                "splits": [f"{images.get(k, 0):,}" for k in ("train", "val", "test")],
                "patients": f"{sum(site['patients'].values()):,}",
                "bars": [100 * images.get(k, 0) / most for k in ("train", "val", "test")],
                "shares": [
                    {"text": percent(share.get(n)), "width": 100 * (share.get(n) or 0)}
                    for n in labels
                ],
            }
        )
    folded = len(results["sites"]) > ONE_BY_ONE
    return {
        "rows": rows,
        "labels": list(labels),
        "count": len(results["sites"]),
        "short": sites_in_short(results["sites"], shares) if folded else None,
    }


def distances(results: ResultsJson) -> TemplatePart | None:
    """Return the matrix of distances between the sites' labels, and the facts on their sizes."""
    found = results.get("heterogeneity")
    if not found:
        return None
    many = len(found["sites"]) > ONE_BY_ONE
    if not many and not found.get("jensen_shannon"):
        return None
    square = [] if many else found["jensen_shannon"]
    most = max((v for row in square for v in row if v is not None), default=0) or 1
    farthest = found.get("farthest")
    return {
        "farthest": None if farthest is None else number(farthest, digits=2),
        "many": many,
        "sites": found["sites"],
        "rows": [
            {
                "site": site,
                "cells": [
                    {"text": number(v, digits=2), "depth": _percent_depth((v or 0) / most)}
                    for v in row
                ],
            }
            for site, row in zip([] if many else found["sites"], square, strict=True)
        ],
        "gini": number(found.get("size_gini"), digits=2),
        "effective": number(found.get("effective_sites"), digits=1),
        "count": len(found["sites"]),
    }


def costs(results: ResultsJson) -> TemplatePart:
    """Return what each arm cost: bytes, seconds, gradient steps, images seen."""
    arms = results["arms"]

    def most(*path: str) -> float:
        return max((_at(a, *path) or 0 for a in arms), default=1) or 1

    key, called = time_of(arms)
    traffic = max(most("bytes", "up"), most("bytes", "down"))
    return {
        "time": called,
        "rows": [
            {
                "name": a["name"],
                "status": a["status"],
                "bars": [
                    _bar(_at(a, "bytes", "up"), traffic, size),
                    _bar(_at(a, "bytes", "down"), traffic, size),
                    _bar(a.get(key), most(key), seconds),
                ],
                "counts": [
                    _count(_at(a, "gradient_steps", "total")),
                    _count(_at(a, "gradient_steps", "one_model")),
                    _count(a.get("images_seen")),
                ],
            }
            for a in arms
        ],
    }


def _group(row: ResultsJson) -> str:
    if row["model"] == OWN:
        return "Each site's own model, at home"
    return "One model for all" if row["model"] == "global" else f"{row['arm']}, the model of"


def _depth(value: float | None, known: list[float], higher_is_better: bool) -> int | None:
    if value is None:
        return None
    low, high = min(known), max(known)
    share = (value - low) / (high - low) if high > low else 0.5
    return _percent_depth(share if higher_is_better else 1 - share)


def _percent_depth(share: float) -> int:
    # 4 to 66 %: the text stays readable in the page's ink on every shade, in light and in dark.
    return round(4 + 62 * share)


def _points(arm: ResultsJson, site: str, key: str) -> list[Any]:
    curve = arm["curves"].get(site) or {}
    return curve.get(key) or []


def _panel(arms: list[Any], site: str, key: str, last: float) -> Any:
    scale = scale_of(v for a in arms for c in a["curves"].values() for v in c.get(key) or [])
    lines = [
        CurveLine(a["name"], i, a["curves"][site]["round"], _points(a, site, key))
        for i, a in enumerate(arms)
        if _points(a, site, key)
    ]
    ends = ", ".join(f"{line.name} {number(line.values[-1])}" for line in lines)
    return curves(lines, scale, rounds=last, label=f"{site}, at round {last}: {ends}")


def _shares(results: ResultsJson, site: ResultsJson) -> dict[str, float]:
    known = ((results.get("heterogeneity") or {}).get("label_share") or {}).get(site["name"])
    if known:
        return dict(known)
    counts = (site.get("labels") or {}).get("test") or {}
    if any(isinstance(n, Mapping) for n in counts.values()):
        read = {k: n.get("positive", 0) + n.get("negative", 0) for k, n in counts.items()}
        return {k: n.get("positive", 0) / read[k] for k, n in counts.items() if read[k]}
    total = sum(counts.values())
    return {k: n / total for k, n in counts.items()} if total else {}


def _at(arm: ResultsJson, *path: str) -> float | None:
    value: Any = arm
    for key in path:
        value = (value or {}).get(key)
    return None if value is None else float(value)


def _bar(value: float | None, most: float, write: Any) -> TemplatePart:
    return {"text": write(value), "width": 100 * (value or 0) / most}


def _count(value: float | None) -> FormattedValue:
    return FormattedValue(BLANK if value is None else f"{value:,.0f}")

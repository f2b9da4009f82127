"""Was federating worth it, in one look and site by site: differences with their intervals."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fedrad.report.arm_panels import (
    comparison_with,
    estimate_of,
    main_metric,
    primary_of,
)
from fedrad.report.differences import NO_COMPARISON, ONE_TRAINING
from fedrad.report.figures import AxisScale, axis, interval_row, scale_of
from fedrad.report.formatting import ResultsJson, TemplatePart, cell, marks, tone
from fedrad.report.many_sites import LISTED, ONE_BY_ONE, caterpillar

__all__ = ["gains_over_own_models", "glance"]

ROLES = {"local": "Each site alone", "centralized": "All data in one place"}


def glance(results: ResultsJson) -> TemplatePart | None:
    """Return the answer in one look: three levels, and the difference, overall and site by site."""
    primary, metric = primary_of(results), main_metric(results)
    arms = {a["name"]: a for a in results["arms"]}
    main = comparison_with(results, primary.get("arm", ""))
    if main is None:
        return None
    own = _own_rows(arms, primary)
    crowded = len(own) > ONE_BY_ONE
    rows = [
        ("All sites", main["difference"], bool(main["supported"])),
        *((r["site"], r["difference"], True) for r in own if not crowded),
    ]
    letters = marks([e for _, e, _ in rows])
    higher = metric["higher_is_better"]
    drawn = [main["difference"], *(r["difference"] for r in own)]
    scale = scale_of([0.0, *(e.get(k) for e in drawn for k in ("value", "low", "high"))])
    return {
        "cards": list(_cards(results, arms, primary)),
        "arm": primary["arm"],
        "against": primary["against"],
        "rows": [
            _glance_row(row, scale, letters, higher, main=i == 0) for i, row in enumerate(rows)
        ],
        "crowd": _crowd(own, scale, higher) if crowded else None,
        "axis": axis(scale, signed=True),
        "zero": scale.at(0.0),
        "better_right": higher,
        "per_site": bool(own),
        "letters": letters,
    }


def _crowd(own: list[Any], scale: AxisScale, higher: bool) -> TemplatePart:
    differences = {row["site"]: row["difference"] for row in own}
    return {
        **caterpillar(differences, scale, higher_is_better=higher),
        "count": len(own),
        "tally": _tally(own),
    }


def _tally(rows: Iterable[Any]) -> TemplatePart:
    """Return at how many sites an arm is better, not shown, worse; else why there are none.

    Of these "compared" is how many were: no count is of a site where an arm has no value.
    """
    counts = Counter(row["verdict"] for row in rows)
    told = {
        "counts": [counts[word] for word in ("better", "not shown", "worse")],
        "missed": counts[NO_COMPARISON],
        "instead": None,
    }
    if counts.total() == counts[NO_COMPARISON]:
        return told | {"instead": NO_COMPARISON}
    return told | (
        {"instead": f"{ONE_TRAINING} of each: no verdict"} if counts[ONE_TRAINING] else {}
    )


def _glance_row(
    row: tuple[str, Any, bool],
    scale: AxisScale,
    letters: Mapping[str, str],
    higher: bool,
    *,
    main: bool,
) -> TemplatePart:
    name, difference, supported = row
    sides = ("worse-side", "better-side") if higher else ("better-side", "worse-side")
    found = cell(difference, letters, signed=True, higher_is_better=higher, supported=supported)
    svg = interval_row(difference, scale, tone=found.tone, reference=0.0, sides=sides, main=main)
    return {"name": name, "main": main, "cell": found, "svg": svg}


def gains_over_own_models(results: ResultsJson) -> TemplatePart | None:
    """Return, for every site and arm, whether the arm beats the site's own model."""
    higher = main_metric(results)["higher_is_better"]
    arms = [a for a in results["arms"] if a["beats_own_model"]]
    if not arms:
        return None
    raw = {a["name"]: {r["site"]: r for r in a["beats_own_model"]} for a in arms}
    letters = marks(raw)
    scale = _own_scale([r["difference"] for rows in raw.values() for r in rows.values()])
    sites = list(dict.fromkeys(site for rows in raw.values() for site in rows))
    count = len(sites)
    if count > ONE_BY_ONE:
        first = raw.get(primary_of(results).get("arm", ""), raw[arms[0]["name"]])
        sites = sorted(sites, key=lambda site: _gain(first.get(site), higher))[:LISTED]
    return {
        "arms": [a["name"] for a in arms],
        "letters": letters,
        "count": count,
        "folded": count > ONE_BY_ONE,
        "rows": [
            {
                "site": site,
                "cells": [
                    _own_cell(raw[a["name"]].get(site), scale, letters, higher) for a in arms
                ],
            }
            for site in sites
        ],
        "tally": [_tally(raw[a["name"]].values()) for a in arms],
    }


def _gain(row: Any, higher: bool) -> float:
    """Return what a site gains, for sorting; where nothing is known it is nothing."""
    value = (row or {}).get("difference", {}).get("value") or 0.0
    return value if higher else -value


def _own_scale(differences: list[Any]) -> AxisScale:
    # One collapsed arm must not press all other intervals into a dot: it becomes an arrow.
    ends = [e.get(key) for e in differences for key in ("value", "low", "high")]
    reach = sorted(abs(v) for v in ends if v is not None) or [0.1]
    most = 3.5 * reach[len(reach) // 2]
    return scale_of([0.0, *(v for v in ends if v is not None and abs(v) <= most)])


def _own_cell(
    row: Any, scale: AxisScale, letters: Mapping[str, str], higher: bool
) -> TemplatePart | None:
    if row is None:
        return None
    difference = row["difference"]
    shade = tone(difference, higher_is_better=higher)
    return {
        "verdict": row["verdict"],
        "cell": cell(difference, letters, signed=True, higher_is_better=higher),
        "svg": interval_row(difference, scale, tone=shade, reference=0.0),
    }


def _own_rows(arms: Mapping[str, Any], primary: Mapping[str, Any]) -> list[Any]:
    # Site by site only where the opponent is the site's own model; else it is another question.
    alone = arms.get(primary["against"], {}).get("models") == "personal"
    rows = arms.get(primary["arm"], {}).get("beats_own_model") if alone else []
    return rows or []


def _cards(results: ResultsJson, arms: Mapping[str, Any], primary: Any) -> Iterator[TemplatePart]:
    metric = main_metric(results)["name"]
    pooled = [a for a in arms if _role(arms[a]) == ROLES["centralized"]]
    for name in dict.fromkeys([primary["against"], primary["arm"], *pooled[:1]]):
        if name in arms:
            estimate = estimate_of(arms[name], metric, "mean")
            yield {"role": _role(arms[name]), "arm": name, "cell": cell(estimate)}


def _role(arm: ResultsJson) -> str:
    first = (arm["algorithm"].split() or [""])[0].strip(",;:")
    return ROLES.get(first, "Federated")

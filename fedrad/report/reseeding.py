"""How far other seeds may land, and what the intervals of one seed hold: beside every table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedrad.metrics.scales import uninformative
from fedrad.report.arm_panels import comparison_with, estimate_of, main_metric, primary_of
from fedrad.report.formatting import ResultsJson

__all__ = ["beside_arms", "beside_matrix", "beside_others", "beside_sites", "reach"]


ONE = (
    "One training of each: how far another seed would land is not known, and the intervals hold "
    "for these trained models only."
)


def beside_arms(results: ResultsJson) -> str | None:
    """Return how far each arm's mean over sites, and its difference, may lie with other seeds."""
    metric, against = main_metric(results)["name"], primary_of(results).get("against")
    means = {arm["name"]: estimate_of(arm, metric, "mean") for arm in results["arms"]}
    gaps = {
        name: found["difference"]
        for name in means
        if (found := comparison_with(results, name)) is not None
    }
    halves = [_halves(means), _halves(gaps)]
    if not halves[0]:
        return ONE if _once(means.values()) else None
    told = _named(halves[0]) + (f"; minus {against}: {_named(halves[1])}" if halves[1] else "")
    wide = [*halves[0].values(), *halves[1].values()]
    return f"{_another(means.values())} may land this far away: {told}." + _hardly(metric, wide)


def beside_sites(results: ResultsJson) -> str | None:
    """Return how far the sites' differences from their own models may lie with other seeds."""
    return _reach_of_main(
        results, [row["difference"] for arm in results["arms"] for row in arm["beats_own_model"]]
    )


def beside_others(results: ResultsJson) -> str | None:
    """Return how far the means over sites in the other metrics may lie with other seeds."""
    main = main_metric(results)["name"]
    names = [metric["name"] for metric in results["metrics"] if metric["name"] != main]
    return reach(
        found
        for arm in results["arms"]
        for name in names
        if (found := estimate_of(arm, name, "mean")) is not None
    )


def beside_matrix(results: ResultsJson) -> str | None:
    """Return how far the values of single models at single sites may lie with other seeds."""
    rows = (results.get("matrix") or {}).get("rows") or []
    return _reach_of_main(
        results, [cell for row in rows for cell in row["cells"] if cell["value"] is not None]
    )


def reach(estimates: Iterable[Mapping[str, Any]]) -> str | None:
    """Return how far estimates may lie with other seeds: the middle one, and the farthest.

    >>> reach([{"seeds": 2, "other_seeds": 0.1}, {"seeds": 2, "other_seeds": 0.3}])
    'Another 2 seeds on the same patients (95%) may land 0.200 away (median) and up to 0.300.'
    """
    found = list(estimates)
    halves = list(_halves(dict(enumerate(found))).values())
    if not halves:
        return ONE if _once(found) else None
    middle = float(np.median(halves))
    return f"{_another(found)} may land {middle:.3f} away (median) and up to {max(halves):.3f}."


def _reach_of_main(results: ResultsJson, estimates: Sequence[Mapping[str, Any]]) -> str | None:
    """Return `reach` of estimates in the main metric, and of how many it says next to nothing."""
    told = reach(estimates)
    halves = _halves(dict(enumerate(estimates))).values()
    return told and told + _hardly(main_metric(results)["name"], halves)


def _hardly(metric: str, halves: Iterable[float]) -> str:
    """Return that such seeds say next to nothing, where the half widths hold most of the scale."""
    found = list(halves)
    count = sum(uninformative(metric, half) for half in found)
    if not count:
        return ""
    return f" Of {count} of these {len(found)} values so few seeds say next to nothing."


def _another(estimates: Iterable[Any]) -> str:
    seeds = max((found.get("seeds") or 0 for found in estimates if found), default=0)
    return f"Another {seeds} seeds on the same patients (95%)"


def _once(estimates: Iterable[Any]) -> bool:
    return any((found or {}).get("seeds") == 1 for found in estimates)


def _halves(estimates: Mapping[Any, Any]) -> dict[Any, float]:
    known = {key: (found or {}).get("other_seeds") for key, found in estimates.items()}
    return {key: half for key, half in known.items() if half is not None}


def _named(halves: Mapping[str, float]) -> str:
    return ", ".join(f"{name} \u00b1{half:.3f}" for name, half in halves.items())

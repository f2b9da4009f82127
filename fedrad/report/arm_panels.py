"""How the arms stand side by side: plain values, cells and charts, ready for the template.

Every function takes the results and returns a dict for its part of the template, or None when the
run has nothing to show there. The template only lays out; nothing is decided in it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fedrad.core.names import by_reason
from fedrad.report.figures import axis, interval_row, scale_of
from fedrad.report.formatting import FormattedValue, ResultsJson, TemplatePart, cell, marks, number
from fedrad.report.many_sites import ONE_BY_ONE

__all__ = [
    "arms_forest",
    "arms_in_numbers",
    "compared",
    "comparison_with",
    "estimate_of",
    "main_metric",
    "other_metrics",
    "partitioned",
    "primary_of",
]


STATUS = {
    "stopped": "stopped",
    "left out": "left out",
    "missing": "not run",
    "incomplete": "some seeds",
}


def primary_of(results: ResultsJson) -> Mapping[str, Any]:
    """Return the declared comparison (arm, against, metric); an arm against itself is none.

    >>> primary_of({"experiment": {"primary": {"arm": "a", "against": "a", "metric": "auroc"}}})
    {'metric': 'auroc'}
    """
    found = results["experiment"].get("primary") or {}
    if found.get("arm") == found.get("against"):
        return {key: value for key, value in found.items() if key == "metric"}
    return dict(found)


def main_metric(results: ResultsJson) -> Mapping[str, Any]:
    """Return the primary metric: the declared one, else the first.

    >>> main_metric({"experiment": {"primary": None}, "metrics": [{"name": "auroc"}]})
    {'name': 'auroc'}
    """
    name = primary_of(results).get("metric")
    metrics: list[Mapping[str, Any]] = results["metrics"]
    return next((m for m in metrics if m["name"] == name), metrics[0])


def partitioned(results: ResultsJson) -> str | None:
    """Return the name of the partitioner that dealt the data out to artificial sites, if any."""
    name: str | None = results.get("partition", {}).get("name")
    return name


def estimate_of(arm: ResultsJson, metric: str, column: str, *, of: str = "columns") -> Any:
    """Return an arm's estimate in a column ("mean", "weighted", "worst", ...), or None."""
    return ((arm.get(of) or {}).get(metric) or {}).get(column)


def comparison_with(results: ResultsJson, arm: str) -> Mapping[str, Any] | None:
    """Return the comparison of an arm with the declared opponent in the primary metric."""
    metric = main_metric(results)["name"]
    against = primary_of(results).get("against")
    return next(
        (
            c
            for c in results["comparisons"]
            if c["arm"] == arm and c["metric"] == metric and c["against"] == against
        ),
        None,
    )


def arms_forest(results: ResultsJson) -> TemplatePart:
    """Return every arm's mean over sites as a forest plot, and its difference from the opponent."""
    metric = main_metric(results)
    rows, partition = list(_arm_rows(results, metric["name"])), partitioned(results)
    estimates = [row["estimate"] for row in rows]
    differences = [(row["comparison"] or {}).get("difference") for row in rows]
    letters = marks([estimates, differences, [r["all"] for r in rows if partition]])
    scale = scale_of(
        e.get(key) for e in estimates if e is not None for key in ("value", "low", "high")
    )
    level = next((r["estimate"] for r in rows if r["reference"] and r["estimate"]), None) or {}
    for row, difference in zip(rows, differences, strict=True):
        row["cell"] = cell(row["estimate"], letters)
        row["pooled"] = cell(row["all"], letters)
        row["difference"] = cell(
            difference,
            letters,
            signed=True,
            higher_is_better=metric["higher_is_better"],
            supported=bool((row["comparison"] or {}).get("supported")),
        )
        row["svg"] = interval_row(
            row["estimate"], scale, tone=row["difference"].tone, reference=level.get("value")
        )
    return {
        "rows": rows,
        "axis": axis(scale),
        "letters": letters,
        "against": primary_of(results).get("against"),
        "partition": partition,
        "better_right": metric["higher_is_better"],
    }


def arms_in_numbers(results: ResultsJson) -> TemplatePart:
    """Return the table of all arms: levels in the primary metric, and the triple."""
    metric = main_metric(results)["name"]
    outside = [s["name"] for s in results["sites"] if s["held_out"]]
    # A column each, but for more than a row holds: `many.across_sites` has those.
    outside = outside if len(results["sites"]) <= ONE_BY_ONE else []
    letters = marks(
        [
            [(a.get(of) or {}).get(metric), (a.get("external") or {}).get(metric), a.get("triple")]
            for a in results["arms"]
            for of in ("columns", "global_columns")
        ]
    )
    rows = []
    for row in _arm_rows(results, metric):
        arm = row["arm"]
        other = ((arm.get("external") or {}).get(metric) or {}) if not row["global"] else {}
        triple = (arm.get("triple") or {}) if not row["global"] else {}
        rows.append(
            row
            | {
                "levels": [
                    cell(estimate_of(arm, metric, column, of=row["of"]), letters)
                    for column in ("mean", "weighted", "pooled", "worst", "best")
                ]
                + [FormattedValue(number(estimate_of(arm, metric, "site_sd", of=row["of"])))]
                + [cell(other.get(site), letters) for site in outside],
                "triple": [
                    cell(
                        triple.get(key),
                        letters,
                        signed=True,
                        as_percent=True,
                        # the triple's signs are turned where lower is better
                        higher_is_better=True,
                    )
                    for key in ("on_site", "off_site", "gap_closed")
                ],
            }
        )
    return {"rows": rows, "outside": outside, "letters": letters}


def other_metrics(results: ResultsJson) -> TemplatePart | None:
    """Return the arms' means over sites in the metrics that are not the primary one."""
    main = main_metric(results)["name"]
    metrics = [m for m in results["metrics"] if m["name"] != main]
    if not metrics:
        return None
    raw = [
        (row, [estimate_of(row["arm"], m["name"], "mean", of=row["of"]) for m in metrics])
        for row in _arm_rows(results, main)
    ]
    letters = marks([estimates for _, estimates in raw])
    rows = [row | {"cells": [cell(e, letters) for e in estimates]} for row, estimates in raw]
    return {"rows": rows, "metrics": metrics, "letters": letters}


def compared(results: ResultsJson) -> TemplatePart | None:
    """Return all comparisons, the primary first, with their p values."""
    if not results["comparisons"]:
        return None
    higher = {m["name"]: m["higher_is_better"] for m in results["metrics"]}
    letters = marks([c["difference"] for c in results["comparisons"]])
    rows = []
    for c in results["comparisons"]:
        side = higher.get(c["metric"], True)
        found = cell(
            c["difference"],
            letters,
            signed=True,
            higher_is_better=side,
            supported=bool(c["supported"]),
        )
        rows.append(c | {"cell": found, "p": _p(c["p"]), "p_adjusted": _p(c["p_adjusted"])})
    return {"rows": rows, "letters": letters}


def _arm_rows(results: ResultsJson, metric: str) -> Iterator[TemplatePart]:
    against = primary_of(results).get("against")
    for arm in results["arms"]:
        both = arm["models"] == "both"
        yield {
            "arm": arm,
            "of": "columns",
            "global": False,
            "name": arm["name"],
            "detail": "each site's own model" if both else arm["algorithm"],
            "chip": STATUS.get(arm["status"], "collapsed" if arm["collapse"] else ""),
            "trouble": list(_trouble(arm)),
            "reference": arm["name"] == against,
            "comparison": comparison_with(results, arm["name"]),
            "estimate": estimate_of(arm, metric, "mean"),
            "all": estimate_of(arm, metric, "pooled"),
        }
        if both and arm.get("global_columns"):
            yield {
                "arm": arm,
                "of": "global_columns",
                "global": True,
                "name": arm["name"],
                "detail": "its global model",
                "chip": "",
                "trouble": [],
                "reference": False,
                "comparison": None,
                "estimate": estimate_of(arm, metric, "mean", of="global_columns"),
                "all": estimate_of(arm, metric, "pooled", of="global_columns"),
            }


def _trouble(arm: ResultsJson) -> Iterator[str]:
    yield from (arm[key] for key in ("reason", "collapse") if arm[key])
    missing = arm.get("missing_sites") or {}
    rounds = {site: f"{n} round{'' if n == 1 else 's'}" for site, n in missing.items()}
    if rounds:
        yield f"went on without {by_reason(rounds)}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else number(value)

"""What each part of the page shows: plain values, cells and charts, ready for the template.

Every function takes the results and returns a dict for its part of the template, or None when the
run has nothing to show there. The template only lays out; nothing is decided in it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fedrad.report.figures import axis, interval_row, scale_of
from fedrad.report.wording import cell, marks, number, tone

__all__ = [
    "arms_forest",
    "arms_in_numbers",
    "compared",
    "comparison_with",
    "estimate_of",
    "glance",
    "main_metric",
    "other_metrics",
    "own_models",
    "primary_of",
]

Results = Mapping[str, Any]
Part = dict[str, Any]

ROLES = {"local": "Each site alone", "centralized": "All data in one place"}
STATUS = {"stopped": "stopped", "missing": "not run"}


def primary_of(results: Results) -> Mapping[str, Any]:
    """Return the declared comparison (arm, against, metric), or an empty mapping."""
    return results["experiment"].get("primary") or {}


def main_metric(results: Results) -> Mapping[str, Any]:
    """Return the primary metric: the declared one, else the first.

    >>> main_metric({"experiment": {"primary": None}, "metrics": [{"name": "auroc"}]})
    {'name': 'auroc'}
    """
    name = primary_of(results).get("metric")
    metrics: list[Mapping[str, Any]] = results["metrics"]
    return next((m for m in metrics if m["name"] == name), metrics[0])


def estimate_of(arm: Results, metric: str, column: str, *, of: str = "columns") -> Any:
    """Return an arm's estimate in a column ("mean", "pooled", "worst"), or None."""
    return ((arm.get(of) or {}).get(metric) or {}).get(column)


def comparison_with(results: Results, arm: str) -> Mapping[str, Any] | None:
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


def glance(results: Results) -> Part | None:
    """Return the answer in one look: three levels, and the difference, overall and site by site."""
    primary, metric = primary_of(results), main_metric(results)
    arms = {a["name"]: a for a in results["arms"]}
    main = comparison_with(results, primary.get("arm", ""))
    if main is None:
        return None
    own = _own_rows(arms, primary)
    rows = [("All sites", main["difference"]), *((r["site"], r["difference"]) for r in own)]
    letters = marks([e for _, e in rows])
    higher = metric["higher_is_better"]
    scale = scale_of([0.0, *(e.get(k) for _, e in rows for k in ("value", "low", "high"))])
    sides = ("worse-side", "better-side") if higher else ("better-side", "worse-side")
    return {
        "cards": list(_cards(results, arms, primary)),
        "arm": primary["arm"],
        "against": primary["against"],
        "rows": [
            {
                "name": name,
                "main": i == 0,
                "cell": cell(e, letters, signed=True, higher_is_better=higher),
                "svg": interval_row(
                    e,
                    scale,
                    tone=tone(e, higher_is_better=higher),
                    reference=0.0,
                    sides=sides,
                    main=i == 0,
                ),
            }
            for i, (name, e) in enumerate(rows)
        ],
        "axis": axis(scale, signed=True),
        "zero": scale.at(0.0),
        "better_right": higher,
        "per_site": bool(own),
        "letters": letters,
    }


def arms_forest(results: Results) -> Part:
    """Return every arm's mean over sites as a forest plot, and its difference from the opponent."""
    metric = main_metric(results)
    rows = list(_arm_rows(results, metric["name"]))
    estimates = [row["estimate"] for row in rows]
    differences = [(row["comparison"] or {}).get("difference") for row in rows]
    letters = marks([estimates, differences])
    scale = scale_of(
        e.get(key) for e in estimates if e is not None for key in ("value", "low", "high")
    )
    level = next((r["estimate"] for r in rows if r["reference"] and r["estimate"]), None) or {}
    for row, difference in zip(rows, differences, strict=True):
        shade = tone(difference or {}, higher_is_better=metric["higher_is_better"])
        row["svg"] = interval_row(row["estimate"], scale, tone=shade, reference=level.get("value"))
        row["cell"] = cell(row["estimate"], letters)
        row["difference"] = cell(
            difference, letters, signed=True, higher_is_better=metric["higher_is_better"]
        )
    return {
        "rows": rows,
        "axis": axis(scale),
        "letters": letters,
        "against": primary_of(results).get("against"),
        "better_right": metric["higher_is_better"],
    }


def arms_in_numbers(results: Results) -> Part:
    """Return the table of all arms: levels in the primary metric, and the triple."""
    metric = main_metric(results)["name"]
    outside = [s["name"] for s in results["sites"] if s["held_out"]]
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
                    for column in ("mean", "pooled", "worst")
                ]
                + [cell(other.get(site), letters) for site in outside],
                "triple": [
                    cell(triple.get(key), letters, signed=True, as_percent=True)
                    for key in ("on_site", "off_site", "gap_closed")
                ],
            }
        )
    return {"rows": rows, "outside": outside, "letters": letters}


def other_metrics(results: Results) -> Part | None:
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


def compared(results: Results) -> Part | None:
    """Return all comparisons, the primary first, with their p values."""
    if not results["comparisons"]:
        return None
    higher = {m["name"]: m["higher_is_better"] for m in results["metrics"]}
    letters = marks([c["difference"] for c in results["comparisons"]])
    rows = []
    for c in results["comparisons"]:
        side = higher.get(c["metric"], True)
        found = cell(c["difference"], letters, signed=True, higher_is_better=side)
        rows.append(c | {"cell": found, "p": _p(c["p"]), "p_adjusted": _p(c["p_adjusted"])})
    return {"rows": rows, "letters": letters}


def own_models(results: Results) -> Part | None:
    """Return, for every site and arm, whether the arm beats the site's own model."""
    higher = main_metric(results)["higher_is_better"]
    arms = [a for a in results["arms"] if a["beats_own_model"]]
    if not arms:
        return None
    raw = {a["name"]: {r["site"]: r for r in a["beats_own_model"]} for a in arms}
    letters = marks(raw)
    all_rows = [r["difference"] for rows in raw.values() for r in rows.values()]
    scale = scale_of([0.0, *(e.get(k) for e in all_rows for k in ("value", "low", "high"))])
    sites = dict.fromkeys(site for rows in raw.values() for site in rows)
    return {
        "arms": [a["name"] for a in arms],
        "letters": letters,
        "rows": [
            {
                "site": site,
                "cells": [
                    _own_cell(raw[a["name"]].get(site), scale, letters, higher) for a in arms
                ],
            }
            for site in sites
        ],
        "tally": [
            [
                sum(r["verdict"] == word for r in raw[a["name"]].values())
                for word in ("better", "not shown", "worse")
            ]
            for a in arms
        ],
    }


def _own_cell(row: Any, scale: Any, letters: Mapping[str, str], higher: bool) -> Part | None:
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
    # Site by site only where the opponent is the site's own model: elsewhere it is another question.
    alone = arms.get(primary["against"], {}).get("models") == "personal"
    rows = arms.get(primary["arm"], {}).get("beats_own_model") if alone else []
    return rows or []


def _cards(results: Results, arms: Mapping[str, Any], primary: Any) -> Iterator[Part]:
    metric = main_metric(results)["name"]
    pooled = [a for a in arms if _role(arms[a]) == ROLES["centralized"]]
    for name in dict.fromkeys([primary["against"], primary["arm"], *pooled[:1]]):
        if name in arms:
            estimate = estimate_of(arms[name], metric, "mean")
            yield {"role": _role(arms[name]), "arm": name, "cell": cell(estimate)}


def _role(arm: Results) -> str:
    first = (arm["algorithm"].split() or [""])[0].strip(",;:")
    return ROLES.get(first, "Federated")


def _arm_rows(results: Results, metric: str) -> Iterator[Part]:
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
            "trouble": arm["reason"] or arm["collapse"] or "",
            "reference": arm["name"] == against,
            "comparison": comparison_with(results, arm["name"]),
            "estimate": estimate_of(arm, metric, "mean"),
        }
        if both and arm.get("global_columns"):
            yield {
                "arm": arm,
                "of": "global_columns",
                "global": True,
                "name": arm["name"],
                "detail": "its global model",
                "chip": "",
                "trouble": "",
                "reference": False,
                "comparison": None,
                "estimate": estimate_of(arm, metric, "mean", of="global_columns"),
            }


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else number(value)

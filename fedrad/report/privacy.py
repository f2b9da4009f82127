"""What arms promise a patient at each site: before training, in the record, and on the page."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fedrad.algorithms.central_dp import statement
from fedrad.assemble import algorithm_of, steps_per_round
from fedrad.config import POOLED, Experiment
from fedrad.data.sites import Federation
from fedrad.registry import check_options, split
from fedrad.report.privacy_curve import curve
from fedrad.training.dp.private_arm import counted, dp_config_of, plan_at

__all__ = ["RELEASED", "privacy_of", "privacy_panel", "privacy_tables"]

RELEASED = (
    "Released are each site's weights after a round and its counts to the nearest ten. Losses, "
    "exact counts, label counts and the optimiser's state stay at the site. Epsilon covers the "
    "training patients; sums of errors over validation and test patients are exact."
)
SIMULATED_NOISE = (
    "This run was simulated: its noise follows from the seed, so that it can be repeated, and "
    "whoever has the YAML can take it off. Only a real site's weights are private."
)


def privacy_of(experiment: Experiment, federation: Federation) -> dict[str, Any]:
    """Return what private arms promise, as plain values; nothing but empty lists without any.

    Returns:
        `sites`: a row for each arm and site, with epsilon, delta, accountant, unit and noise;
        `statements`: sentences on central privacy.

    Raises:
        ConfigError: a site cannot carry what an arm asks for.
    """
    rows: list[dict[str, Any]] = []
    told: list[str] = []
    for name in experiment.arm_names:
        arm = experiment.arm(name)
        if dp_config_of(arm) is not None:
            rows += _rows(name, arm, federation)
        told += [f"{name}: {one}" for one in _central(arm, len(federation.training))]
    return {"sites": rows, "statements": told}


def _rows(name: str, arm: Experiment, federation: Federation) -> list[dict[str, Any]]:
    if algorithm_of(arm).pooled:
        images = [counted(arm, federation.sites[s].images("train")) for s in federation.training]
        steps = sum(steps_per_round(arm.local, n) for n in images)
        plans = {POOLED: plan_at(arm, federation.pool(), steps=steps)}
    else:
        plans = {site: plan_at(arm, federation.sites[site]) for site in federation.training}
    return [{"arm": name, "site": site, **plan.as_json()} for site, plan in plans.items() if plan]


def _central(arm: Experiment, sites: int) -> list[str]:
    from fedrad.algorithms.central_dp import central_dp

    found = []
    for spec in arm.wrap:
        name, options = split(spec, where="wrap")
        if name == "central_dp":
            known = check_options(central_dp, options, where="wrap", name=name)
            found.append(statement(noise=known["noise"], rounds=arm.rounds, sites=sites))
    return found


def privacy_tables(privacy: Mapping[str, Any]) -> list[RenderableType]:
    """Return what `fedrad check` prints of privacy; nothing where no arm is private."""
    found: list[RenderableType] = []
    if privacy["sites"]:
        table = Table(title="Privacy", caption=RELEASED, box=SIMPLE_HEAD, title_justify="left")
        for column in ("arm", "site", "unit"):
            table.add_column(column)
        for column in ("epsilon", "delta", "noise", "by RDP", "sampled", "steps"):
            table.add_column(column, justify="right")
        for row in privacy["sites"]:
            table.add_row(*_cells(row))
        found.append(table)
    return found + [Text(sentence) for sentence in privacy["statements"]]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["arm"],
        row["site"],
        row["unit"],
        _epsilon(row["epsilon"]),
        f"{row['delta']:g}",
        f"{row['noise']:.3g}",
        _epsilon(row["rdp"]),
        f"{100 * row['rate']:.3g} %",
        f"{row['steps'] * row['rounds']}",
    ]


def _epsilon(value: float | None) -> str:
    return "none: no noise" if value is None else f"{value:.3g}"


def privacy_panel(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the page's part on privacy, or None where no arm is private."""
    privacy = results.get("privacy") or {"sites": [], "statements": []}
    if not privacy["sites"] and not privacy["statements"]:
        return None
    rows = [
        {
            "cells": _cells(row),
            "accountant": row["accountant"],
            "patient": ""
            if row["units"] == 1
            else f"epsilon {_epsilon(row['patient_epsilon'])} for a patient, who has up to "
            f"{row['units']} images",
        }
        for row in privacy["sites"]
    ]
    return {
        "rows": rows,
        "statements": privacy["statements"],
        "released": RELEASED if rows else "",
        "simulated": SIMULATED_NOISE if rows else "",
        "curve": curve(results),
    }

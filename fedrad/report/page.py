"""One HTML file that says what a run found: opens offline, prints, needs no script.

The page asks the network for nothing, and its own Content-Security-Policy forbids scripts and
requests; pictures are in the page itself. Every text from the experiment or a site is escaped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedrad.report import arm_panels as panels
from fedrad.report import details as grounds
from fedrad.report import many_sites as many
from fedrad.report import reseeding
from fedrad.report import summary as gains
from fedrad.report.formatting import size
from fedrad.report.leakage_panel import leakage
from fedrad.report.participation import rounds_panel
from fedrad.report.privacy import privacy_panel
from fedrad.report.tradeoff import trade_off

__all__ = ["render"]


def render(results: Mapping[str, Any]) -> str:
    """Return the report of a run as one self-contained HTML page.

    Args:
        results: what results.json holds (schema 1).

    Returns:
        A whole HTML document, to be written as UTF-8.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(_parts(results))


def _parts(results: Mapping[str, Any]) -> dict[str, Any]:
    headline = results["headline"] or [f"{results['experiment']['name']}: nothing to compare yet."]
    return {
        "headline": headline,
        "experiment": results["experiment"],
        "facts": _facts(results),
        "metric": panels.main_metric(results),
        "primary": panels.primary_of(results),
        "glance": gains.glance(results),
        "forest": panels.arms_forest(results),
        "numbers": panels.arms_in_numbers(results),
        "others": panels.other_metrics(results),
        "compared": panels.compared(results),
        "own": gains.gains_over_own_models(results),
        "heat": grounds.heat_map(results),
        "across": many.across_sites(results),
        "learning": grounds.learning(results),
        "sites": grounds.who_took_part(results),
        "rounds": rounds_panel(results),
        "distances": grounds.distances(results),
        "costs": grounds.costs(results),
        "privacy": privacy_panel(results),
        "cuts": trade_off(results),
        "leaks": leakage(results),
        "oddities": results.get("oddities", []),
        "seeds": {
            "arms": reseeding.beside_arms(results),
            "sites": reseeding.beside_sites(results),
            "others": reseeding.beside_others(results),
            "matrix": reseeding.beside_matrix(results),
        },
        "notes": results["notes"],
    }


def _facts(results: Mapping[str, Any]) -> dict[str, Any]:
    experiment, model = results["experiment"], results["model"]
    environment = results["environment"]
    task = experiment["task"]
    shape = " \u00d7 ".join(map(str, task["input"]))
    return {
        "training": sum(not s["held_out"] for s in results["sites"]),
        "held_out": sum(bool(s["held_out"]) for s in results["sites"]),
        "finished": str(environment.get("finished") or "")[:10],
        "experiment": {
            "task": f"{task['name']}: {', '.join(task['labels'])}; input {shape}",
            "model": f"{model['name']}, {model['parameters']:,} parameters, {size(model['bytes'])}",
            "rounds": experiment["rounds"],
            "seeds": ", ".join(map(str, experiment["seeds"])),
            "command": experiment["command"],
            "digest": experiment["digest"],
        },
        "environment": {k: v for k, v in environment.items() if v is not None},
    }

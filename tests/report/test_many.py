"""With hundreds of sites a report must stay readable, and must still tell every one that loses."""

import io
import re
from typing import Any

import numpy as np
import pytest
from example_results import Json, estimate, example
from rich.console import Console

from fedrad.core.names import by_reason
from fedrad.metrics.base import Array
from fedrad.metrics.scales import SCALES, Basis
from fedrad.report import estimates
from fedrad.report.arm_statistics import mean_over
from fedrad.report.figures import scale_of
from fedrad.report.many_sites import (
    LISTED,
    ONE_BY_ONE,
    across_sites,
    caterpillar,
    curves_over_sites,
)
from fedrad.report.page import render
from fedrad.report.tables import results_tables


def crowd(count: int) -> Json:
    """Return the example with so many sites; the first loses clearly, the last wins clearly."""
    results = example()
    names = [f"site-{number:03d}" for number in range(count)]
    gains = dict(zip(names, np.linspace(-0.3, 0.3, count).tolist(), strict=True))
    results["sites"] = [{**results["sites"][0], "name": name} for name in names]
    results["heterogeneity"]["sites"] = names
    results["heterogeneity"]["label_share"] = {name: {"lesion": 0.5} for name in names}
    square = [[0.25] * count] * count if count <= ONE_BY_ONE else None
    results["heterogeneity"] |= {"jensen_shannon": square, "farthest": 0.25}
    for arm in results["arms"]:
        if arm["beats_own_model"]:
            arm["beats_own_model"] = [_row(name, gain) for name, gain in gains.items()]
        if arm["curves"]:
            arm["curves"] = {
                name: {"round": [1, 2], "value": [0.5, 0.5 + gain], "loss": [1.0, 1.0 - gain]}
                for name, gain in gains.items()
            }
    heads = [{"site": n, "held_out": False, "images": 40, "positives": 20} for n in names]
    home = [estimate(0.5 + place / (2 * count), 0.02) for place in range(count)]
    cells = [estimate(0.5 + gain, 0.02) for gain in gains.values()]
    results["matrix"] = {
        "metric": "auroc",
        "columns": heads,
        "rows": [
            {"arm": "local", "model": "own", "cells": home},
            {"arm": "fedavg", "model": "global", "cells": cells},
        ],
    }
    return results


def _row(name: str, gain: float) -> Json:
    word = "better" if gain > 0.1 else "worse" if gain < -0.1 else "not shown"
    return {"site": name, "difference": estimate(gain, 0.1), "verdict": word}


def printed(results: Any) -> str:
    """Return what a terminal of 100 columns shows."""
    console = Console(file=io.StringIO(), width=100)
    for part in results_tables(results):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_up_to_two_dozen_sites_are_shown_one_by_one_and_more_as_a_crowd() -> None:
    few, many = render(crowd(ONE_BY_ONE)), render(crowd(ONE_BY_ONE + 1))
    assert "sites, sorted" not in few and "<details>" not in few
    assert f"{ONE_BY_ONE + 1} sites, sorted" in many and "<details>" in many
    assert "Every model on every site" in few and "Every model on every site" not in many
    assert "How each arm does across the sites" in many


def test_what_a_crowd_gains_adds_up_to_all_of_its_sites() -> None:
    page = render(crowd(101))
    found = re.findall(r">(\d+) better</span><br>(\d+) not shown<br>.*?>(\d+) worse", page)
    assert found and all(sum(map(int, counts)) == 101 for counts in found)
    # Gains are even from -0.3 to 0.3: a third of the sites on either side of 0.1.
    assert set(found) == {("34", "33", "34")}


def test_every_site_of_a_crowd_has_its_name_in_the_folded_list() -> None:
    page = render(crowd(LISTED))
    inside = page[page.index("<details>") : page.index("</details>")]
    order = re.findall(r'scope="row">(site-\d+)', inside)
    assert order == [f"site-{n:03d}" for n in range(LISTED)], "the largest loss comes first"


def test_a_page_does_not_grow_with_sites_that_it_cannot_list() -> None:
    """Of more, evenly picked ones are drawn, the ends among them, and the page says so."""
    small, large = render(crowd(500)), render(crowd(1000))
    assert len(large) < 1.02 * len(small)
    assert "400 are drawn" in large and "all 1000 are in results.json" in large
    assert "site-000" in large and "site-999" in large


def test_the_spread_is_numpys_quantiles_of_the_sites_values() -> None:
    """Own models stand at home only; what was not evaluated is no value."""
    found = across_sites(crowd(101))
    assert found is not None
    own, shared, *outside = found["rows"]
    assert (own["arm"], own["models"], own["undefined"]) == ("local", "own models", 0)
    assert [row["models"] for row in outside] == ["at held-out sites"] * 6
    home = [round(0.5 + place / 202, 4) for place in range(101)]
    assert own["tenths"] == [f"{v:.3f}" for v in np.quantile(home, [0.1, 0.5, 0.9])]
    assert shared["tenths"] == ["0.260", "0.500", "0.740"]


def test_curves_of_a_crowd_are_its_tenths_at_each_round() -> None:
    arms = [arm for arm in crowd(101)["arms"] if arm["name"] == "fedavg"]
    panels = curves_over_sites(arms, "value", 2)
    assert [panel["site"] for panel in panels] == [
        "The sites' lowest tenth", "Median site", "Highest tenth",
    ]  # fmt: skip
    ends = [re.search(r"at round 2: fedavg ([\d.]+)", panel["svg"]) for panel in panels]
    assert [end and end[1] for end in ends] == ["0.260", "0.500", "0.740"]


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_site_of_a_crowd_is_on_top(higher: bool) -> None:
    values = {"a": -0.2, "b": 0.3, "c": 0.1}
    differences = {site: estimate(value, 0.05) for site, value in values.items()}
    scale = scale_of(values.values())
    svg = caterpillar(differences, scale, higher_is_better=higher)["svg"]
    order = re.findall(r"<title>(\w)", svg)
    assert order == (["b", "c", "a"] if higher else ["a", "c", "b"])
    assert svg.count("better") == (4 if higher else 2), "an interval and a point for each"


def test_a_terminal_counts_a_crowd_and_names_who_loses() -> None:
    text = printed(crowd(30))
    assert "each of 30 sites" in text
    line = next(line for line in text.splitlines() if line.startswith("fedprox  "))
    own = text[text.index("Against the model") :]
    assert line and len(own.splitlines()) < 20
    assert "site-000, site-001, site-002 and 7 more" in " ".join(own.split())
    assert max(map(len, text.splitlines())) <= 100


def test_one_reason_of_many_sites_is_told_once() -> None:
    text = by_reason({f"site-{n}": "its disk is full" for n in range(500)})
    assert text == "site-0, site-1, site-2 and 497 more: its disk is full"
    each = by_reason({f"site-{n}": f"reason {n}" for n in range(500)})
    assert each.endswith("site-2: reason 2; and 497 other reasons")


def test_a_mean_over_sites_misses_few_of_them_in_a_resample_and_no_more() -> None:
    """One of 20 is 5 %; two are more. What was observed is never the mean of some."""
    parts = [np.array([[0.5, 1.0, 1.0, 1.0]]) for _ in range(20)]
    parts[0] = np.array([[0.9, 9.0, np.nan, np.nan]])
    parts[1] = np.array([[0.5, 1.0, 1.0, np.nan]])
    assert mean_over(parts)[0, :3].tolist() == pytest.approx([0.52, 1.4, 1.0])
    assert np.isnan(mean_over(parts)[0, 3])
    weights = [3.0, *[1.0] * 19]
    assert mean_over(parts, weights)[0, :3].tolist() == pytest.approx([12.2 / 22, 46 / 22, 1.0])
    parts[0][0, 0] = np.nan
    assert np.isnan(mean_over(parts)[0, 0])


def test_the_interval_of_a_mean_over_small_sites_holds_the_truth() -> None:
    """Forty sites of five positive patients: none has an interval, their mean has, of 200 patients.

    Between 93 and 97 %: 100 draws of it lie above 89 % nearly always.
    """
    rng = np.random.default_rng(0)
    truth = 0.76025  # AUROC of normal scores one standard deviation apart
    ill, well = np.full((40, 1), 5.0), np.full((40, 1), 25.0)
    basis = Basis(SCALES["auroc"], ill, well, np.full(40, 1 / 40))
    held = []
    for _ in range(100):
        parts = [_auroc_of_a_site(rng, patients=30, positives=5) for _ in range(40)]
        found = estimates.estimate(mean_over(parts), level=0.95, basis=basis)
        held.append(found["low"] <= truth <= found["high"])
    assert np.mean(held) >= 0.89


def _auroc_of_a_site(rng: np.random.Generator, *, patients: int, positives: int) -> Array:
    """Return AUROC and 200 replicates of it, [1, 201], by the patients' jackknife influences."""
    ill = np.arange(patients) < positives
    scores = rng.normal(size=patients) + ill
    wins = (scores[ill, None] > scores[None, ~ill]).astype(np.float64)
    value = wins.mean()
    above = (wins.mean(axis=1) - value) / (positives - 1)
    below = (wins.mean(axis=0) - value) / (patients - positives - 1)
    moved = rng.normal(size=(200, patients)) @ np.concatenate([above, below])
    return np.concatenate([[value], value + moved])[None]

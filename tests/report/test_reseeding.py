"""How far other seeds may land stands beside every table; one training gives no verdict."""

import io
from typing import Any

from example_results import example
from rich.console import Console

from fedrad.report.page import render
from fedrad.report.reseeding import ONE, beside_arms, beside_sites
from fedrad.report.tables import results_tables


def seeded(value: Any, seeds: int, half: float | None) -> Any:
    """Return results whose estimates are all of so many seeds."""
    if isinstance(value, dict):
        found = {key: seeded(each, seeds, half) for key, each in value.items()}
        if "low" in value and value.get("value") is not None:
            found |= {"seeds": seeds, "other_seeds": half}
        if seeds == 1 and "verdict" in value:
            found["verdict"] = "one training"
        return found
    return [seeded(each, seeds, half) for each in value] if isinstance(value, list) else value


def printed(results: Any, *, colour: bool = False) -> str:
    """Return what a terminal shows."""
    console = Console(file=io.StringIO(), width=100, force_terminal=colour, no_color=not colour)
    for part in results_tables(results):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_how_far_other_seeds_may_land_stands_beside_every_table() -> None:
    """Each arm's mean and difference by name; of many cells the middle one and the farthest."""
    results = seeded(example(), 3, 0.0125)
    told = beside_arms(results)
    assert told is not None
    assert told.startswith(
        "Another 3 seeds on the same patients (95%) may land this far away: local \u00b10.013"
    ) or told.startswith(
        "Another 3 seeds on the same patients (95%) may land this far away: local \u00b10.012"
    )
    assert "; minus local: centralized \u00b1" in told
    sites = "may land 0.013 away (median) and up to 0.013."
    assert (beside_sites(results) or "").endswith(sites.replace("0.013", f"{0.0125:.3f}"))
    flat = " ".join(printed(results).split())
    assert flat.count("Another 3 seeds on the same patients (95%)") == 2
    page = render(results)
    # The glance, the forest, the numbers, the comparisons, other metrics, own models, the matrix.
    assert page.count("Another 3 seeds on the same patients (95%)") == 7


def test_seeds_that_say_next_to_nothing_are_told_so() -> None:
    """Half widths of half the scale and more: 0.5 of an AUROC."""
    told = beside_sites(seeded(example(), 2, 0.9)) or ""
    assert told.endswith("values so few seeds say next to nothing.")
    assert "next to nothing" not in (beside_sites(seeded(example(), 2, 0.1)) or "")


def uncompared(results: Any, sites: int) -> Any:
    """Return results in which the first sites of each arm have nothing to compare."""
    for each in results["arms"]:
        for row in each["beats_own_model"][:sites]:
            gone = {"value": None, "low": None, "high": None, "reason": "fedavg: not run yet"}
            row["verdict"], row["difference"] = "no comparison", row["difference"] | gone
    return results


def test_a_site_without_a_comparison_counts_as_nothing_in_table_and_page() -> None:
    text = printed(uncompared(example(), 1))
    assert "no comparison" in text[text.index("Against the model") :]
    assert "<br>1 no comparison" in render(uncompared(example(), 1))
    page = render(uncompared(example(), 99))
    assert " not shown<br>" not in page and "<td>no comparison" in page


def test_one_training_of_each_shows_no_verdict_word_bold_or_colour() -> None:
    """Its intervals leave zero out here, and hold for these trained models only."""
    results = seeded(example(), 1, None)
    results["headline"], results["comparisons"] = (
        ["one training of each"],
        [
            each | {"p": None, "p_adjusted": None, "supported": False, "sentence": "one training"}
            for each in results["comparisons"]
        ],
    )
    text = printed(results)
    own = text[text.index("Against the model") :]
    assert "one training" in own
    for word in ("better", "worse", "not shown"):
        assert word not in own
    assert ONE in " ".join(text.split())
    assert "\x1b[1m" not in printed(results, colour=True)
    page = render(results)
    assert "<strong>" not in page and "\u25b2 better" not in page and "\u25bc worse" not in page
    assert "one training of each: no verdict" in page
    assert " not shown<br>" not in page

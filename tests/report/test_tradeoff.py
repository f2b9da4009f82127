"""The section on cuts says what was moved and measured, and is absent where nothing is cut."""

import re

from example_results import example

from fedrad.report.formatting import BLANK
from fedrad.report.page import render
from fedrad.report.tradeoff import trade_off

CUT = {
    "cut": "layer1",
    "image_bytes": {"up": 18_944, "down": 18_944},
    "parameters": {"site": 5_233, "server": 92_544},
    "site_share": 0.212,
}


def cut_results() -> dict:
    """The example, with its fedavg cut, its centralized arm pooling and its local arm silent."""
    results = example()
    for arm in results["arms"]:
        arm["split"] = CUT if arm["name"] == "fedavg" else None
        arm["pooled"] = arm["name"] == "centralized"
        if arm["name"] == "local":
            arm["bytes"] = {"up": 0, "down": 0}
    return results


def test_a_run_without_a_cut_has_no_section() -> None:
    assert trade_off(example()) is None
    assert 'id="cuts"' not in render(example())


def test_each_arm_has_a_row_and_those_that_exchange_a_point() -> None:
    found = trade_off(cut_results())
    assert found is not None
    arms = cut_results()["arms"]
    assert [row["name"] for row in found["rows"]] == [arm["name"] for arm in arms]
    row = next(row for row in found["rows"] if row["name"] == "fedavg")
    assert (row["cut"], row["share_told"], row["weights"]) == ("after layer1", "21.2 %", "5,233")
    drawn = re.findall(r"<title>([\w.+-]+):", str(found["svg"]))
    assert "fedavg" in drawn and "centralized" not in drawn and "local" not in drawn


def test_the_page_shows_it() -> None:
    assert 'id="cuts"' in render(cut_results())


def test_what_leaks_stands_beside_what_a_cut_costs() -> None:
    """A cheap cut that gives the image away is no bargain: both are read in one line."""
    results = cut_results()
    arm = next(arm for arm in results["arms"] if arm["name"] == "fedavg")
    arm["leakage"] = {
        "cut": "layer1",
        "distance_correlation": {"plain": 0.98, "corrected": 0.95},
        "reconstruction": {
            "attack": "a decoder",
            "ssim": 0.67, "guess_ssim": 0.44, "psnr": 21.0, "guess_psnr": 15.0,
        },
        "labels": {
            "sent": False,
            "attacks": {"norm": "by length", "direction": "by angle"},
            "findings": {
                "a": {"norm": None, "direction": 0.5},
                "b": {"norm": 0.41, "direction": 0.9},
            },
        },
        "seed": 0, "attacker": "ost, train", "attacked": "nord, test",
        "images": {"own": 10, "attacked": 10}, "pictures": [],
    }  # fmt: skip
    found = trade_off(results)
    assert found is not None and found["leakage"]
    leaks = {row["name"]: row["leaks"] for row in found["rows"]}
    assert leaks["fedavg"] == ["0.67 (0.44)", "0.90"] and leaks["centralized"] == [BLANK, BLANK]
    section = render(results).split('id="cuts"')[1].split("</section>")[0]
    assert "Images drawn" in section and "0.67 (0.44)" in section
    assert "Images drawn" not in render(cut_results())

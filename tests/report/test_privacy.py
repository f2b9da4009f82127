"""What the check and the page say of privacy."""

import pytest
from example_results import example
from rich.console import Console

from fedrad.report.page import render
from fedrad.report.privacy import RELEASED, privacy_tables
from fedrad.report.privacy_curve import curve, points

ROW = {
    "arm": "fedavg", "site": "nord", "unit": "patient", "epsilon": 7.99, "rdp": 8.7, "noise": 1.04,
    "delta": 1e-5, "rate": 0.05, "steps": 19, "rounds": 30, "accountant": "prv", "units": 1,
    "patient_epsilon": 7.99, "patient_delta": 1e-5,
}  # fmt: skip


def results(*rows: dict) -> dict:
    """A run's results with some private arms."""
    return {**example(), "privacy": {"sites": list(rows), "statements": ["central: a sentence."]}}


def test_the_page_names_epsilon_delta_accountant_and_unit_for_every_site() -> None:
    """And what was released, and that a simulation's noise can be taken off again."""
    page = render(results(ROW, ROW | {"site": "<sued>", "epsilon": None, "patient_epsilon": None}))
    for text in ("7.99", "1e-05", "prv", "patient", "none: no noise", "central: a sentence.",
                 "counts to the nearest ten", "take it off", "&lt;sued&gt;"):  # fmt: skip
        assert text in page


def test_an_image_s_epsilon_is_never_shown_without_the_patient_s() -> None:
    """A patient with four films must not read the epsilon of one."""
    row = ROW | {"unit": "image", "units": 4, "patient_epsilon": 31.0}
    assert "epsilon 31 for a patient, who has up to 4 images" in render(results(row))


def test_a_page_without_privacy_has_no_word_of_it() -> None:
    """No panel where no arm is private."""
    assert "What was promised" not in render(example())


def test_the_check_prints_a_row_for_each_arm_and_site() -> None:
    """Before training: epsilon, noise, and what leaves."""
    console = Console(width=200, record=True)
    for renderable in privacy_tables({"sites": [ROW], "statements": ["central: told."]}):
        console.print(renderable)
    text = console.export_text()
    assert "nord" in text and "7.99" in text and "570" in text and "central: told." in text
    assert RELEASED[:40] in " ".join(text.split())
    assert privacy_tables({"sites": [], "statements": []}) == []


def test_the_curve_stands_each_arm_at_its_largest_epsilon() -> None:
    """The site that pays most; arms without privacy stand apart at the right."""
    found = results(ROW, ROW | {"site": "sued", "patient_epsilon": 3.0})
    by_name = {p.arm: p for p in points(found)}
    assert by_name["fedavg"].epsilon == 7.99
    assert {p.epsilon for name, p in by_name.items() if name != "fedavg"} == {None}
    assert points(found)[0].arm == "fedavg"
    drawn = curve(found)
    assert drawn is not None and drawn.count("<circle") == 2 * len(by_name)
    assert curve(example()) is None


@pytest.mark.parametrize("epsilon", [None, 7.99])
def test_an_arm_without_noise_promises_nothing(epsilon: float | None) -> None:
    """It is private in name only and must not be drawn at an epsilon."""
    found = points(results(ROW | {"patient_epsilon": epsilon}))
    assert next(p for p in found if p.arm == "fedavg").epsilon == epsilon

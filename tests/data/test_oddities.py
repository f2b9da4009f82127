"""What looks odd reaches the run's screen, its results and its page, unless it is accepted."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fedrad.config import Experiment, from_text, load_experiment, load_site_file
from fedrad.data.checks.oddities import Oddity
from fedrad.data.sites import federation_of, hospital_of
from fedrad.report.oddities import oddities_told, oddity_values

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TEXT = """
name: tiny
task: {name: binary, labels: [disease], input: [1]}
data: {name: table, csv: all.csv, features: [age], label: sick, site: place}
split: {val: 0.2, test: 0.2}
model: mlp
local: {epochs: 1}
rounds: 2
algorithm: fedavg
"""
SITE = """
name: nord
data: {name: table, csv: all.csv, features: [age], label: sick}
data_root: .
coordinator: {host: localhost, port: 9092}
min_patients: 1
max_upload_mb: 1
max_norm: null
"""


def asked(folder: Path, **changes: object) -> Experiment:
    rows = [f"{50 + k},{k % 2},nord" for k in range(10)]
    (folder / "all.csv").write_text("\n".join(["age,sick,place", *rows]))
    return Experiment.model_validate(from_text(TEXT).model_dump() | changes)


def test_a_federation_carries_what_looks_odd_unless_the_experiment_accepts_it(
    tmp_path: Path,
) -> None:
    (odd,) = federation_of(asked(tmp_path), tmp_path).oddities
    assert odd.rule == "patients-unnamed"
    assert not federation_of(asked(tmp_path, accept=("patients-unnamed",)), tmp_path).oddities


def test_a_hospital_accepts_in_its_own_file(tmp_path: Path) -> None:
    """Its data are its own business; an experiment's `accept` does not speak for it."""
    experiment = asked(tmp_path, accept=("patients-unnamed",))
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    (odd,) = hospital_of(experiment, load_site_file(path)).oddities
    assert (odd.site, odd.rule) == ("nord", "patients-unnamed")
    path.write_text(SITE + "accept: [patients-unnamed]\n")
    assert not hospital_of(experiment, load_site_file(path)).oddities


def test_accepting_nothing_leaves_the_canonical_text_as_it_was() -> None:
    """Run folders and approvals of before stay valid."""
    plain = from_text(TEXT)
    assert "accept" not in plain.text()
    accepting = plain.model_copy(update={"accept": ("images-alike",)})
    assert from_text(accepting.text()).accept == ("images-alike",)


def test_accepting_a_rule_later_leaves_an_arms_text_as_it_was() -> None:
    """An arm that is finished need not be trained again because a warning was read."""
    plain = from_text(TEXT)
    accepting = plain.model_copy(update={"accept": ("images-alike",)})
    assert accepting.arm("fedavg").text() == plain.arm("fedavg").text()


@pytest.mark.parametrize("name", ["heart_disease", "pneumoniamnist"])
def test_experiments_without_patients_say_so_in_the_text_that_travels(name: str) -> None:
    """`patient: null` is no missing key: who reads the canonical text knows that it is meant."""
    read = from_text(load_experiment(EXPERIMENTS / f"{name}.yaml").text()).data
    assert isinstance(read, dict) and "patient" in read and read["patient"] is None


def test_the_screen_tells_what_looks_odd_with_its_mend_and_a_few_of_many() -> None:
    odd = Oddity("nord", "images-alike", "Two look alike (rows 1, 3).", "keep one.", (1, 3))
    screen = io.StringIO()
    for line in oddities_told([odd, replace(odd, site="")]):
        Console(file=screen, width=200).print(line)
    assert "Looks odd: nord: Two look alike (rows 1, 3). To mend it: keep one." in screen.getvalue()
    assert "Looks odd: Two look alike" in screen.getvalue()
    assert str(oddities_told([odd] * 11)[-1]) == "... and 3 more; results.json has all."


def test_the_results_hold_rules_and_rows() -> None:
    odd = Oddity("nord", "images-alike", "Two look alike.", "keep one.", (1, 3))
    assert oddity_values([odd]) == [
        {"site": "nord", "rule": "images-alike", "found": "Two look alike.", "mend": "keep one.",
         "rows": [1, 3]}
    ]  # fmt: skip

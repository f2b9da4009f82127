"""From a played run to results and page: everything in one piece, strict JSON, every arm shown."""

import csv
import json
from pathlib import Path

import pytest
from made import experiment, federation, play, site

from fedrad.data.sites import Federation
from fedrad.report.page import render
from fedrad.report.results import results_of, write_results
from fedrad.report.tables import results_tables
from fedrad.runs import RunFolder


def results(folder: Path, what=None, sites=None) -> dict:
    return results_of(
        RunFolder(folder), what or experiment(), sites or federation(), command="x", device="cpu"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    play(folder)
    return folder


def test_results_are_strict_json_and_draw_every_arm(finished: Path) -> None:
    found = write_results(
        RunFolder(finished),
        experiment(),
        federation(),
        command="fedrad run made.yaml",
        device="cpu",
    )
    read = json.loads((finished / "results.json").read_text(), parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(found))
    page = (finished / "report.html").read_text()
    for arm in experiment().arm_names:
        assert arm in page
    assert results_tables(found)


def test_all_arms_spend_the_same_number_of_gradient_steps(finished: Path) -> None:
    """What was planned is what was done: steps are counted by the sites as they take them."""
    found = results(finished)
    assert len({arm["gradient_steps"]["total"] for arm in found["arms"]}) == 1
    assert "same number of gradient steps" in found["experiment"]["budget"]
    # 5 + 3 + 4 batches of 8 in a round, 4 rounds
    assert found["arms"][0]["gradient_steps"] == {"total": 48, "one_model": 20}


def test_unequal_budgets_are_told() -> None:
    from fedrad.report.plan import plan_of

    arms = dict(experiment().arms) | {"long": {"algorithm": "fedavg", "local": {"epochs": 2}}}
    told = plan_of(experiment(arms=arms), federation())["budget"]
    assert "do NOT take the same number" in told and "long 96" in told


def test_the_value_of_a_site_is_that_of_its_own_cell(finished: Path) -> None:
    """The arms table's mean over sites is the plain mean of what each site measured."""
    cells = RunFolder(finished).arm("fedavg", 0).evaluation().cells
    mean = sum(cells["global", name]["brier"][0] for name in ("nord", "ost", "sued")) / 3
    arm = next(arm for arm in results(finished)["arms"] if arm["name"] == "fedavg")
    assert arm["columns"]["brier"]["mean"]["value"] == pytest.approx(mean, abs=1e-12)


def test_the_realised_partition_is_kept_with_its_digest(finished: Path) -> None:
    write_results(RunFolder(finished), experiment(), federation(), command="x", device="cpu")
    rows = list(csv.DictReader((finished / "partition.csv").open()))
    assert len(rows) == sum(len(d.x) for d in federation().sites.values())
    moved = Federation(dict(federation().sites) | {"ost": site("ost", 25)}, ())
    assert results(finished)["partition"] != results(finished, sites=moved)["partition"]


def test_pooling_sends_no_model_and_claims_no_bytes(finished: Path) -> None:
    found = {arm["name"]: arm["bytes"] for arm in results(finished)["arms"]}
    assert found["centralized"] == {"down": None, "up": None}
    assert found["local"] == {"down": 0, "up": 0} and found["fedavg"]["up"] == 4 * 3 * 260


def test_an_arm_that_was_not_played_is_shown_as_missing(tmp_path: Path) -> None:
    play(tmp_path, arms=["fedavg"])
    found = results(tmp_path)
    assert {arm["name"]: arm["status"] for arm in found["arms"]}["fedprox"] == "missing"
    assert "not played yet" in render(found)


def test_seeds_that_not_every_arm_has_are_left_out_and_told(tmp_path: Path) -> None:
    both = experiment(seeds=(0, 1))
    play(tmp_path, both, arms=["fedavg"])
    play(tmp_path, experiment(), arms=["local"])
    assert any("Seeds 1 are not finished" in note for note in results(tmp_path, both)["notes"])


def test_one_arm_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    alone = experiment(arms={"fedavg": {"algorithm": "fedavg"}}, primary=None)
    play(tmp_path, alone)
    found = results(tmp_path, alone)
    assert found["comparisons"] == [] and "nothing is compared" in found["headline"][0]
    assert render(found)


def test_many_sites_are_tested_at_home_only_and_still_reported(tmp_path: Path) -> None:
    """Past 16 sites the matrix of personal models is left out: it grows with the square."""
    sites = Federation({f"s{k:02d}": site(f"s{k:02d}", 12) for k in range(17)}, ())
    what = experiment(rounds=1)
    play(tmp_path, what, sites, arms=["local", "fedavg"])
    cells = RunFolder(tmp_path).arm("local", 0).evaluation().cells
    assert len(cells) == 18
    assert render(results(tmp_path, what, sites))


def test_class_weights_are_said_to_be_global_or_per_site(tmp_path: Path) -> None:
    base = experiment().local.model_dump(exclude_none=True)
    what = experiment(local=base | {"class_weights": "global"})
    play(tmp_path, what, arms=["fedavg"])
    assert any("label counts of all training sites" in n for n in results(tmp_path, what)["notes"])

"""From a played run to results and page: everything in one piece, strict JSON, every arm shown."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from made import experiment, federation, play, site

from fedrad.data.sites import Federation
from fedrad.errors import RunError
from fedrad.report.page import render
from fedrad.report.plan import plan_of
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
    assert "not run yet" in render(found)


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


def test_an_arm_of_another_experiment_is_not_compared(finished: Path) -> None:
    """A folder that was played with other rounds must not lend its numbers to these."""
    with pytest.raises(
        RunError, match=r"local/seed-0 is of another experiment: 'rounds: 4' became"
    ):
        results(finished, experiment(rounds=5))


def test_arms_that_were_begun_on_different_data_are_not_compared(tmp_path: Path) -> None:
    play(tmp_path, arms=["local", "fedavg"])
    mark = tmp_path / "fedavg" / "seed-0" / "evaluated.yaml"
    mark.write_text(re.sub("# data: .*", "# data: 0123", mark.read_text()))
    with pytest.raises(RunError, match=r"begun on different data or machines"):
        results(tmp_path)


def test_what_the_numbers_rest_on_is_recorded(finished: Path) -> None:
    found = results(finished)["environment"]
    assert found["computed on"] == f"cpu, torch {version('torch')}"
    assert re.fullmatch("[0-9a-f]{16}", found["data"])
    assert {"torchvision", "opacus", "pillow", "numpy", "torch"} <= set(found)
    # On these the last bits depend, and with them an interval that ends next to zero.
    assert found["processor"] and found["threads"] == 1 and found["cores"] == os.cpu_count()
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    page = render(results(finished))
    for key in ("processor", "instructions", "threads", "numpy", "torchvision"):
        assert f"<dt>{key}</dt><dd>{found[key]}</dd>" in page


def test_the_budget_is_told_from_the_steps_that_were_taken(finished: Path, tmp_path: Path) -> None:
    """12 batches in each of 4 rounds; a round that the record lacks is a round not trained."""
    assert {arm["steps_taken"] for arm in results(finished)["arms"]} == {48}
    play(tmp_path, arms=["local", "fedavg"])
    record = tmp_path / "fedavg" / "seed-0" / "rounds.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    lines[1] |= {"steps": 7, "missing": {"ost": "no answer within 9 s"}}
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = results(tmp_path)["experiment"]["budget"]
    assert "do NOT take the same number" in told and "local 48" in told and "fedavg 43" in told


def test_an_arm_with_a_training_of_its_own_is_named() -> None:
    arms = dict(experiment().arms) | {
        "slow": {"algorithm": "fedavg", "local": {"optimizer": "adam"}}
    }
    told = plan_of(experiment(arms=arms), federation())["budget"]
    assert "same number of gradient steps" in told and "which slow set on their own" in told


def test_a_round_that_was_written_twice_counts_once(finished: Path, tmp_path: Path) -> None:
    """A crash between line and state repeats the round; bytes and steps must not double."""
    shutil.copytree(finished, tmp_path / "run")
    record = tmp_path / "run" / "fedavg" / "seed-0" / "rounds.jsonl"
    record.write_text(record.read_text() + record.read_text().splitlines()[-1] + "\n")
    assert results(tmp_path / "run")["arms"] == results(finished)["arms"]


def test_a_site_without_training_images_is_left_out_of_the_comparison(tmp_path: Path) -> None:
    sites = federation()
    rows = dict(sites.sites["ost"].rows) | {"train": np.zeros(0, np.int64)}
    ost = replace(sites.sites["ost"], rows=rows)
    sites = replace(sites, sites=dict(sites.sites) | {"ost": ost})
    play(tmp_path, sites=sites, arms=["local", "fedavg"])
    found = results(tmp_path, sites=sites)
    assert "over 2 of 3 sites: nord, sued" in found["comparisons"][0]["difference"]["reason"]
    fedavg = next(arm for arm in found["arms"] if arm["name"] == "fedavg")
    own = {row["site"]: row["difference"] for row in fedavg["beats_own_model"]}
    assert own["ost"]["value"] is None and "trained nothing" in own["ost"]["reason"]


def test_the_arm_that_was_declared_as_opponent_is_the_one_to_beat(tmp_path: Path) -> None:
    """With two arms of sites alone, gains are over the declared one."""
    arms = {
        "short": {"algorithm": "local", "local": {"optimizer": {"name": "sgd", "lr": 1e-6}}},
        **{name: dict(experiment().arms)[name] for name in ("local", "fedavg")},
    }
    what = experiment(arms=arms)
    play(tmp_path, what)
    found = results(tmp_path, what)
    fedavg = next(arm for arm in found["arms"] if arm["name"] == "fedavg")
    by_site = [row["difference"]["value"] for row in fedavg["beats_own_model"]]
    assert np.mean(by_site) == pytest.approx(found["comparisons"][0]["difference"]["value"])


def test_sites_that_are_drawn_spend_less_than_sites_that_train_at_home_in_every_round() -> None:
    """12 batches a round: at home all four rounds, federated with one of three sites a third of
    them, and fine-tuned three such rounds and one of all sites."""
    what = experiment(sites_per_round=1)
    planned = {
        arm["name"]: arm["gradient_steps"]["total"] for arm in plan_of(what, federation())["arms"]
    }
    assert {planned["local"], planned["centralized"]} == {48}
    assert (planned["fedavg"], planned["tuned"]) == (16, 24)


def test_a_site_that_missed_the_last_evaluation_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    record = tmp_path / "run" / "fedavg" / "seed-0" / "evaluation.json"
    told = json.loads(record.read_text())
    told["facts"]["absent"] = {"ost": "no answer within 9 s"}
    record.write_text(json.dumps(told))
    note = "fedavg, seed 0: ost did not answer the final evaluation"
    assert any(each.startswith(note) for each in results(tmp_path / "run")["notes"])
    assert not any("final evaluation" in each for each in results(finished)["notes"])

"""Training and evaluation rest on different things: new metrics and test sites train nothing."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made import experiment, federation, play, site

from fedrad.data.sites import Federation
from fedrad.errors import RunError
from fedrad.report.results import results_of
from fedrad.runs import RunFolder

ARMS = {name: dict(experiment().arms)[name] for name in ("local", "fedavg", "tuned")}
WHAT = experiment(arms=ARMS)
ALONE = {name: federation().sites[name] for name in ("nord", "ost")}
TWO = Federation(ALONE, ())
"""The federation that trains; sued comes later, and only tests."""


def later(**changes: object):
    """The experiment with more metrics and a held-out site, as a file says it then."""
    more = {"metrics": ("auroc", "brier", "loss"), "held_out_sites": ("sued",)}
    source = {"data": {"name": "table", "csv": "made-with-sued.csv"}}
    return experiment(arms=ARMS, **{**more, **source, **changes})


THREE = Federation({**ALONE, "sued": site("sued", 32, shift=-0.5)}, ("sued",))


def weights(folder: Path) -> dict[str, bytes]:
    found = {arm: folder / arm / "seed-0" / "state.safetensors" for arm in ARMS}
    kept = sorted((folder / "sites").glob("*/*/seed-0/*.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*found.values(), *kept]}


def results(folder: Path, what, sites: Federation) -> dict:
    return results_of(RunFolder(folder), what, sites, command="x", device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    play(folder, WHAT, TWO)
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_a_metric_and_a_held_out_site_are_evaluated_and_nothing_is_trained(
    copy: Path, tmp_path: Path
) -> None:
    """The cells are those of a run that had them from the start; the weights are not touched."""
    before = weights(copy)
    told = play(copy, later(), THREE)
    assert told.rounds == [] and told.skips == [] and told.stopped == {}
    assert weights(copy) == before
    play(tmp_path / "new", later(), THREE)
    for arm in ARMS:
        found, fresh = (
            RunFolder(folder).arm(arm, 0).evaluation().cells for folder in (copy, tmp_path / "new")
        )
        assert found.keys() == fresh.keys()
        for place, cell in fresh.items():
            assert cell.keys() == {"auroc", "brier", "loss"}
            for metric, values in cell.items():
                np.testing.assert_array_equal(found[place][metric], values)
    assert play(copy, later(), THREE).skips == list(ARMS)


def test_a_held_out_site_whose_data_were_corrected_is_tested_again(copy: Path) -> None:
    play(copy, later(), THREE)
    other = Federation({**ALONE, "sued": site("sued", 30, shift=2.0)}, ("sued",))
    before = RunFolder(copy).arm("fedavg", 0).evaluation().cells["global", "sued"]["brier"][0]
    assert play(copy, later(), other).rounds == []
    after = RunFolder(copy).arm("fedavg", 0).evaluation().cells["global", "sued"]["brier"][0]
    assert before != after


def test_an_arm_that_is_not_evaluated_again_yet_lends_no_old_numbers(copy: Path) -> None:
    play(copy, later(), THREE, arms=["fedavg"])
    found = {arm["name"]: arm for arm in results(copy, later(), THREE)["arms"]}
    assert found["fedavg"]["status"] == "finished"
    for name in ("local", "tuned"):
        assert "was evaluated with other metrics or test sites" in found[name]["reason"]
        assert found[name]["columns"]["auroc"]["mean"]["value"] is None
    assert play(copy, later(), THREE).skips == ["fedavg"]
    assert {a["status"] for a in results(copy, later(), THREE)["arms"]} == {"finished"}


def test_a_site_that_trained_and_is_now_held_out_is_named_in_the_refusal(copy: Path) -> None:
    """A digest of data tells nobody which line of the experiment to take back."""
    told = (
        "'trained on: 2 sites' became 'trained on: 1 sites' (held_out_sites: none became nord); "
        "choose another folder"
    )
    what = experiment(arms=ARMS, held_out_sites=("nord",))
    with pytest.raises(RunError, match=re.escape(told)):
        play(copy, what, Federation(ALONE, ("nord",)))


@pytest.mark.parametrize(
    ("what", "sites", "told"),
    [
        (later(rounds=5), THREE, "'rounds: 4' became 'rounds: 5'"),
        (
            later(),
            Federation({**THREE.sites}, ()),
            "2 sites' became 'trained on: 3 sites'",
        ),
        (later(), Federation({**THREE.sites}, ("ost",)), "'trained on: "),
        (
            later(),
            replace(THREE, sites={**THREE.sites, "ost": site("ost", 24, shift=0.4)}),
            "'trained on: ",
        ),
        (later(sites_per_round=1), THREE, "'nothing' became 'sites_per_round: 1'"),
    ],
)
def test_what_makes_other_weights_is_refused(copy: Path, what, sites, told: str) -> None:
    """Another site that trains, or other images at one that does, is another training."""
    before = weights(copy)
    with pytest.raises(RunError, match=f"begun with another experiment or other data: .*{told}"):
        play(copy, what, sites)
    assert weights(copy) == before


def test_a_model_of_a_site_s_own_that_is_gone_is_said_to_be_gone(copy: Path) -> None:
    """Without it the site would count as one that trained nothing, which is not true of it."""
    shutil.rmtree(copy / "sites" / "ost" / "local")
    told = play(copy, later(), THREE)
    assert set(told.stopped) == {"local"}
    reason = "the models of their own that ost trained are no longer in sites/SITE/local/seed-0"
    assert reason in told.stopped["local"] and "--out" in told.stopped["local"]
    found = {arm["name"]: arm for arm in results(copy, later(), THREE)["arms"]}
    assert found["local"]["status"] == "stopped" and reason in found["local"]["reason"]
    # What was measured before is still there for the experiment that it was measured for.
    assert results(copy, WHAT, TWO)["arms"][0]["status"] == "finished"


def as_before(folder: Path) -> None:
    """Leave a run's folder as versions wrote it that did not tell the two claims apart."""
    for path in folder.glob("*/seed-0/evaluated.yaml"):
        path.unlink()
        mark = path.with_name("arm.yaml")
        lines = mark.read_text().splitlines(keepends=True)
        mark.write_text("".join(line for line in lines if not line.startswith("# trained on")))


def test_a_folder_of_an_older_version_still_opens(copy: Path) -> None:
    as_before(copy)
    assert play(copy, WHAT, TWO).skips == list(ARMS)
    assert {arm["status"] for arm in results(copy, WHAT, TWO)["arms"]} == {"finished"}
    more = experiment(arms=ARMS, metrics=("auroc", "brier", "loss"))
    assert play(copy, more, TWO).rounds == []
    assert "loss" in RunFolder(copy).arm("fedavg", 0).evaluation().cells["global", "nord"]


def test_an_older_folder_does_not_know_its_training_data_apart_and_says_what_changed(
    copy: Path,
) -> None:
    as_before(copy)
    with pytest.raises(RunError, match=r"'csv: made.csv' became 'csv: made-with-sued.csv'"):
        play(copy, later(), THREE)


def test_an_arm_in_the_middle_goes_on_with_the_metrics_of_now(trained: Path, copy: Path) -> None:
    """Killed after round 3, then played with another metric: the weights of an unbroken run."""
    folder = copy / "fedavg" / "seed-0"
    for name in ("evaluation.json", "evaluated.yaml", "state.safetensors"):
        (folder / name).unlink()
    (folder / "server" / "round-000004.safetensors").unlink()
    told = play(copy, later(), THREE, arms=["fedavg"])
    assert told.rounds == [("fedavg", 0, 4)]
    assert (folder / "state.safetensors").read_bytes() == (
        trained / "fedavg" / "seed-0" / "state.safetensors"
    ).read_bytes()
    assert "loss" in RunFolder(copy).arm("fedavg", 0).evaluation().cells["global", "sued"]
    assert json.loads((folder / "evaluation.json").read_text())["counts"].keys() == {
        "nord", "ost", "sued",
    }  # fmt: skip

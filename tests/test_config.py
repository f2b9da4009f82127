"""YAML in, checked values out; a mistake is told with its place and the nearest that fits."""

from pathlib import Path

import pytest

from fedrad.config import Experiment, from_text, load_experiment, load_site
from fedrad.errors import ConfigError

TEXT = """
name: tiny
task: {name: binary, labels: [lesion], input: [1, 32, 32]}
data: {name: phantom}
model: cnn
local: {epochs: 1, batch: 8}
rounds: 2
seeds: [0, 1]
arms:
  local: {algorithm: local}
  fedavg: {algorithm: fedavg}
  fedprox: {algorithm: {name: fedprox, mu: 0.1}, local: {steps: 5}}
primary: {arm: fedavg}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new)


def test_the_canonical_text_is_read_back_to_the_same_experiment() -> None:
    """Sites build their half from this text: it must hold all of it."""
    experiment = from_text(TEXT)
    assert from_text(experiment.text()) == experiment
    assert from_text(experiment.text()).text() == experiment.text()


def test_the_canonical_text_does_not_depend_on_order_or_spelling() -> None:
    again = "\n".join(reversed(TEXT.strip().split("\narms:")[0].splitlines()))
    arms = "\narms:" + TEXT.split("\narms:")[1]
    assert from_text(again + arms).digest() == from_text(TEXT).digest()


def test_an_arm_is_the_base_with_what_it_changes() -> None:
    arm = from_text(TEXT).arm("fedprox")
    assert arm.algorithm == {"name": "fedprox", "mu": 0.1}
    assert (arm.local.steps, arm.local.epochs, arm.local.batch) == (5, None, 8)


def test_arms_and_seeds_are_no_part_of_an_arm() -> None:
    """Adding an arm or a seed to an experiment leaves finished arms valid."""
    more = from_text(
        changed(
            "  local: {algorithm: local}", "  local: {algorithm: local}\n  x: {algorithm: local}"
        )
    )
    assert more.arm("fedavg").text() == from_text(TEXT).arm("fedavg").text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds: 2", "ronds: 2", r"ronds: unknown key; known are .*\(did you mean 'rounds'\?\)"),
        ("batch: 8", "bacth: 8", r"local\.bacth: unknown key; .*\(did you mean 'batch'\?\)"),
        ("batch: 8", "batch: 0", r"local\.batch: input should be greater than 0, found 0"),
        ("epochs: 1, ", "", r"local: set one of epochs and steps"),
        ("rounds: 2", "rounds: 2\nrounds: 3", r"tiny\.yaml:\d+: 'rounds' stands twice"),
        ("seeds: [0, 1]", "seeds: [1, 1]", r"seeds: seed 1 stands twice"),
        ("name: binary", "name: binay", r"task\.name: input should be 'binary', 'multiclass'"),
        ("[lesion]", "[a, b]", r"task: labels: a binary task has one finding, found 2"),
        (
            "primary: {arm: fedavg}",
            "primary: {arm: fedagv}",
            r"primary\.arm: 'fedagv' is not one of",
        ),
        (
            "  fedavg: {algorithm",
            "  fedavg: {algoritm",
            r"arms\.fedavg\.algoritm: .*did you mean 'algorithm'",
        ),
        ("data: {name: phantom}\n", "", r"set one of data \(an adapter\) and sites"),
        ("name: tiny\n", "name: ../tiny\n", r"name: string should match pattern"),
        ("model: cnn", "model: [", r"tiny\.yaml:\d+: "),
        ("rounds: 2\n", "", r"rounds: is missing"),
        (
            "rounds: 2\n",
            "rounds: 2\nmetrics: [auroc, auroc]\n",
            r"metrics: metric auroc stands twice",
        ),
        ("primary: {arm: fedavg}", "", r"primary: declare one comparison before the results"),
    ],
)
def test_a_mistake_is_told_with_place_and_fit(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(written(tmp_path, changed(old, new)))


def test_a_missing_file_and_a_list_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="needs a mapping"):
        load_experiment(written(tmp_path, "- a\n- b\n"))


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    """A YAML file from elsewhere is data: no tag may call anything."""
    evil = changed("rounds: 2", "rounds: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        load_experiment(written(tmp_path, evil))


def test_overrides_reach_inside_and_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    experiment = load_experiment(path, ["rounds=5", "local.batch=16", "seeds=[7]"])
    assert (experiment.rounds, experiment.local.batch, experiment.seeds) == (5, 16, (7,))
    with pytest.raises(ConfigError, match="needs key=value"):
        load_experiment(path, ["rounds"])
    with pytest.raises(ConfigError, match="ronds: unknown key"):
        load_experiment(path, ["ronds=5"])


def test_the_name_defaults_to_the_files(tmp_path: Path) -> None:
    assert load_experiment(written(tmp_path, changed("name: tiny\n", ""))).name == "tiny"


def test_a_site_file_is_checked_and_may_not_be_called_pooled(tmp_path: Path) -> None:
    good = tmp_path / "nord.yaml"
    good.write_text("name: nord\ndata: {name: phantom}\n", encoding="utf-8")
    assert load_site(good).name == "nord"
    good.write_text("name: pooled\ndata: {name: phantom}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no site may be named 'pooled'"):
        load_site(good)


def test_an_experiment_cannot_be_changed() -> None:
    experiment: Experiment = from_text(TEXT)
    with pytest.raises(ValueError, match="frozen"):
        experiment.rounds = 3

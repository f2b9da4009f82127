"""A patient who was trained on under an epsilon is tested on in a second experiment, and told of.

Another `split.seed` makes test patients of training patients, and metrics of them are exact.
"""

import csv
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from leaving import context, in_flowers_runtime, question, site_file

from fedrad.config import Experiment, from_text
from fedrad.deployment.site.guard import Answerer
from fedrad.deployment.site.worker import answering
from fedrad.privacy.promised import Promised
from fedrad.rounds.records import bundle_of, config_of

TEXT = """
{{name: asked, task: {{name: binary, labels: [lesion], input: [2]}},
 model: {{name: mlp, hidden: [3]}}, local: {{epochs: 1, batch: 8}}, rounds: 2, algorithm: fedavg,
 data: {{name: phantom}}, replicates: 0, metrics: [brier], privacy: {privacy},
 split: {{val: 0.25, test: 0.25, seed: {seed}}}, shared_patients: {shared}}}
"""
DP = "{name: dp_sgd, noise: 1.0}"
TOLD = "nord: privacy: limit patients whom no arm was trained on under dp_sgd, asked"


def experiment(seed: int, privacy: str = DP, shared: str = "false") -> Experiment:
    return from_text(TEXT.format(seed=seed, privacy=privacy, shared=shared))


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FEDRAD_CACHE", str(tmp_path / "cache"))
    in_flowers_runtime()
    yield


def hospital(folder: Path, **policy: Any) -> Answerer:
    """A hospital's own process, over a table of eighty patients without a split."""
    root = folder / "data"
    root.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(4)
    with (root / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "a", "b", "finding"])
        for n in range(80):
            rows.writerow([f"p{n:03}", *draw.normal(size=2).round(5), n % 2])
    data = {"name": "table", "csv": "rows.csv", "features": ["a", "b"], "label": "finding"}
    data["patient"] = "id"
    answer = answering(site_file(folder, data=data, data_root=str(root), **policy))
    # A run begins with the roll call.
    answer(question(experiment(1), "describe"), context(folder))
    return answer


def asked(
    answer: Answerer, folder: Path, what: Experiment, action: str, number: int = 3
) -> Message:
    return answer(question(what, action, number=number), context(folder))


def reason(reply: Message) -> str:
    return (reply.error.reason or "") if reply.has_error() else ""


@pytest.mark.parametrize("action", ["test", "validate"])
@pytest.mark.parametrize(
    "other",
    [experiment(2), experiment(2, "none"), experiment(2, "none", "true")],
    ids=["private", "plain", "shared patients"],
)
def test_who_was_trained_on_under_a_promise_is_not_tested_on_by_another_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Experiment, action: str
) -> None:
    """Not by another word in the text, and not after a restart; without the rule it is told."""
    before = tmp_path / "before"
    assert reason(asked(hospital(before), before, other, action)) == ""
    answer = hospital(tmp_path)
    assert reason(asked(answer, tmp_path, experiment(1), "fit", 1)) == ""
    for again in (answer, hospital(tmp_path)):
        part = {"test": "test", "validate": "val"}[action]
        told = reason(asked(again, tmp_path, other, action))
        assert told == f"PolicyError: {TOLD} {action} on some ({part})"
    monkeypatch.setattr(Promised, "any_of", lambda *_: False)
    assert reason(asked(answer, tmp_path, other, action)) == ""


def test_the_experiment_that_trains_them_goes_on_to_its_own_end(tmp_path: Path) -> None:
    """Its validation and test patients are others, in every arm and round."""
    answer = hospital(tmp_path)
    for number in (1, 2):
        action = "fit" if number == 1 else "fit+validate"
        assert reason(asked(answer, tmp_path, experiment(1), action, number)) == ""
    for action in ("validate", "test"):
        assert reason(asked(answer, tmp_path, experiment(1), action)) == ""
    assert reason(asked(hospital(tmp_path), tmp_path, experiment(1), "test")) == ""
    reply = asked(hospital(tmp_path), tmp_path, experiment(1), "describe")
    assert "refuses" not in config_of(reply.content)


def test_without_noise_nobody_was_promised_anything(tmp_path: Path) -> None:
    """Experiments without privacy may split the same patients anew, as cross-validation does."""
    answer = hospital(tmp_path)
    assert reason(asked(answer, tmp_path, experiment(1, "none"), "fit", 1)) == ""
    assert reason(asked(answer, tmp_path, experiment(2, "none"), "test")) == ""
    assert not (tmp_path / "state" / "privacy" / "promised.bin").exists()


def test_it_is_known_at_the_roll_call_before_anybody_spends_anything(tmp_path: Path) -> None:
    answer = hospital(tmp_path)
    assert reason(asked(answer, tmp_path, experiment(1), "fit", 1)) == ""
    reply = asked(answer, tmp_path, experiment(2), "describe")
    told = json.loads(str(config_of(reply.content)["refuses"]))
    assert told["fedavg"].startswith(f"PolicyError: {TOLD} ")


@pytest.mark.parametrize("privacy", [DP, "none"])
def test_labels_of_who_was_trained_on_under_a_promise_are_not_counted_in_another_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, privacy: str
) -> None:
    """The description comes before any refusal: counts over many splits would solve for labels."""

    def labels(answer: Answerer, seed: int) -> dict[str, list[list[int]]]:
        reply = asked(answer, tmp_path, experiment(seed, privacy), "describe")
        return {part: one.tolist() for part, one in bundle_of(reply.content)["labels"].items()}

    answer = hospital(tmp_path)
    own = labels(answer, 1)
    assert reason(asked(answer, tmp_path, experiment(1), "fit", 1)) == ""
    untold = {"train": [[0, 0, 40]], "val": [[0, 0, 20]], "test": [[0, 0, 20]]}
    for again in (answer, hospital(tmp_path)):
        assert labels(again, 2) == untold
        assert labels(again, 1) == {**own, "train": untold["train"]}
    monkeypatch.setattr(Promised, "any_of", lambda *_: False)
    assert labels(hospital(tmp_path), 2)["val"] == [[10, 10, 0]]


def test_what_is_kept_tells_nobody_without_the_site_s_key_who_it_is(tmp_path: Path) -> None:
    """Sixteen bytes a patient in no order of the table, for the owner's eyes alone."""
    patients = np.arange(40, dtype=np.uint64)
    one, other = Promised(tmp_path / "one", b"one"), Promised(tmp_path / "other", b"other")
    for promised in (one, other):
        promised.add(patients)
        promised.add(patients[:7])
    path = tmp_path / "one" / "privacy" / "promised.bin"
    raw = path.read_bytes()
    assert len(raw) == 40 * 16 and stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = [raw[at : at + 16] for at in range(0, len(raw), 16)]
    assert kept == sorted(kept)
    assert not set(kept) & {
        (tmp_path / "other" / "privacy" / "promised.bin").read_bytes()[at : at + 16]
        for at in range(0, len(raw), 16)
    }


def test_a_digest_that_a_crash_cut_off_is_written_again(tmp_path: Path) -> None:
    """Nothing was trained on it: the patient is added when training is asked for again."""
    Promised(tmp_path, b"k").add(np.arange(3, dtype=np.uint64))
    path = tmp_path / "privacy" / "promised.bin"
    path.write_bytes(path.read_bytes()[:-5])
    again = Promised(tmp_path, b"k")
    assert sum(again.any_of(np.array([n], np.uint64)) for n in range(3)) == 2
    again.add(np.arange(3, dtype=np.uint64))
    assert all(Promised(tmp_path, b"k").any_of(np.array([n], np.uint64)) for n in range(3))


def test_a_disk_that_takes_no_digest_stops_the_training(tmp_path: Path) -> None:
    """Else the patient would be trained on and not remembered."""
    answer = hospital(tmp_path)
    (tmp_path / "state" / "privacy").write_text("no folder can be made here")
    told = reason(asked(answer, tmp_path, experiment(1), "fit", 1))
    assert told.startswith("PrivacyError: privacy: promised.bin could not be written (")
    assert told.endswith("training does not start; the hospital's operator can make room")

"""A preview: what would leave, known without connecting and without training."""

from pathlib import Path

import made
import pytest
import test_guard as guarded
import torch
from test_guard import _runtime  # noqa: F401 - messages need Flower's task

from fedrad.federation.outline import Outline, Shape, outline_of
from fedrad.federation.preview import Exchange, exchanges_of, introduction, per_round
from fedrad.federation.verdict import verdict_of


def by_action(arm: str) -> dict[tuple[str, int], Exchange]:
    found = exchanges_of(made.experiment(), arm)
    return {(one.action, one.bytes_in): one for one in found}


@pytest.mark.parametrize("arm", ["fedavg", "fedprox", "tuned", "local"])
def test_what_is_shown_is_what_leaves_to_the_byte(tmp_path: Path, arm: str) -> None:
    """A run is played with a guard around each site; its log weighs what the preview said.

    In process a validation has a message of its own; over a network it rides with the round.
    """
    guarded.guarded_run(tmp_path, arms=[arm])
    what = made.experiment()
    one_by_one = {
        action: outline_of(what.arm(arm), [action], guarded.model(), {}, round=1).bytes
        for action in ("fit", "validate", "tune", "test")
    } | {"describe": introduction(what).answer.bytes}
    shown = {action for one in exchanges_of(what, arm) for action in one.action.split("+")}
    lines = guarded.lines(tmp_path / "ost")
    assert {line["action"] for line in lines} == shown | {"describe"}
    for line in lines:
        settings = line["bytes_out"] - one_by_one.get(line["action"], line["bytes_out"])
        if line["action"] == "describe":
            # The site's name, versions, device and digest of the data are texts.
            assert 0 < settings < 200
        elif line["action"] in one_by_one:
            assert settings == len("ost")


def test_fedavg_sends_the_model_once_each_way_in_a_round() -> None:
    """One exchange a round: the validation of a model goes with the question that sends it."""
    found = exchanges_of(made.experiment(), "fedavg")
    parameters = 4 * sum(v.numel() for v in guarded.model()["model"].values())
    down, up = per_round(found)
    assert down == parameters
    sums = next(one for one in found if one.action == "validate").answer.bytes
    # Three numbers of the fit; num-examples and patients of the validation share one name.
    assert up == parameters + 3 * 8 + sums - 8
    (every,) = [one for one in found if one.when == "every round"]
    assert every.action == "fit+validate"


def test_fine_tuning_sends_no_model_back() -> None:
    found = {
        one.when: one for one in exchanges_of(made.experiment(), "tuned") if "fi" in one.action
    }
    assert set(found["first rounds"].answer.arrays) == {"model", "sums"}
    assert set(found["last rounds"].answer.arrays) == {"sums"}


def test_label_counts_leave_when_class_weights_are_global() -> None:
    local = made.experiment().local.model_copy(update={"class_weights": "global"})
    what = made.experiment(local=local.model_dump(exclude_none=True))
    asked = {one.action: one for one in exchanges_of(what, "fedavg")}
    assert asked["count"].when == "at the start"
    assert set(asked["count"].answer.arrays) == {"counts"}
    assert "count" not in {one.action for one in exchanges_of(made.experiment(), "fedavg")}


def test_an_outline_is_of_the_real_answers_shapes() -> None:
    """A hospital without an image to train on sends what one with images sends, in shape."""
    look = outline_of(made.experiment().arm("fedavg"), ["test"], guarded.model(), {}, round=5)
    statistics = look.arrays["sums"]
    # 20 replicates and the observed one.
    assert {shape.shape[0] for shape in statistics.values()} == {101}


def test_the_first_difference_from_an_outline_is_told() -> None:
    look = Outline({"model": {"w": Shape((2,), "float32")}}, frozenset({"steps"}))
    assert look.difference({"model": {"w": Shape((2,), "float32")}}, ["steps"]) is None
    assert look.difference(look.arrays, []) == "number steps is missing"
    more = {**look.arrays, "images": {"x": Shape((1,), "uint8")}}
    assert look.difference(more, ["steps"]) == "an array that nobody asked for"


def test_a_verdict_is_what_the_guard_would_say(tmp_path: Path) -> None:
    """The demo hospital has 12 patients: its train split has enough, its test split has not."""
    film = torch.Size([1, 16, 16])
    what = made.experiment(
        task={"name": "binary", "labels": ["lesion"], "input": list(film)},
        data={"name": "phantom"},
        model="cnn",
    )
    allow = guarded.POLICY["allow"] | {"models": ["cnn"], "algorithms": ["fedavg"]}
    demo = {"name": "phantom", "hospitals": {"nord": {"patients": 12}}}
    site = guarded.site(tmp_path, data=demo, allow=allow, min_patients=5)
    verdict = verdict_of(site, what)
    told = {one.action: verdict(one) for one in exchanges_of(what, "fedavg")}
    assert told["test"] == "refused: min_patients: limit 5, asked test on fewer (test)"
    assert verdict(exchanges_of(what, "fedprox")[0]).startswith("refused: allow.algorithms")
    assert verdict(introduction(what)) == "allowed"

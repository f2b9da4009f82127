"""A preview: what would leave, known without connecting and without training."""

from dataclasses import replace
from pathlib import Path

import made
import pytest
import test_guard as guarded
import torch
from flwr.app import Context, Message
from split_arms import split_experiment
from test_guard import _runtime  # noqa: F401 - messages need Flower's task

from fedrad.algorithms.base import Frame, Request
from fedrad.algorithms.split.server import ServerHalf
from fedrad.assemble import (
    cut_of,
    initial_state,
    local_task,
    model_of,
    server_task,
    streams_of,
)
from fedrad.deployment.reply_spec import ArraySpec, ReplySpec, infer_reply_spec, specs_of
from fedrad.deployment.site.policy_preview import preview_decision
from fedrad.deployment.site.preview import Exchange, exchanges_of, introduction, per_round
from fedrad.metrics.site_result import hospital_disclosure
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import site_apps
from fedrad.rounds.server import server_app
from fedrad.rounds.site_streams import ClientCoroutine
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid
from fedrad.training.objective import balanced_weights

CPU = torch.device("cpu")
HOSPITAL = hospital_disclosure()


def by_action(arm: str) -> dict[tuple[str, int], Exchange]:
    found = exchanges_of(made.experiment(), arm)
    return {(one.action, one.bytes_in): one for one in found}


@pytest.mark.parametrize("arm", ["fedavg", "fedprox", "tuned", "half", "local"])
def test_what_is_shown_is_what_leaves_to_the_byte(tmp_path: Path, arm: str) -> None:
    """A run is played with a guard around each site; its log weighs what the preview said.

    In process a validation has a message of its own; over a network it rides with the round.
    """
    guarded.guarded_run(tmp_path, arms=[arm])
    what = made.experiment()
    one_by_one = {
        action: infer_reply_spec(what.arm(arm), [action], guarded.model(), {}, round=1).bytes
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


def test_updates_in_float16_are_foreseen_by_name_kind_and_bytes() -> None:
    """Half of FedAvg's arrays up, the same down: what `fedrad check --mbit` reckons with."""
    plain, half = (exchanges_of(made.experiment(), arm) for arm in ("fedavg", "half"))
    fits = [one for one in half if one.action.startswith("fit")]
    assert {tuple(sorted(one.answer.arrays)) for one in fits} == {("change", "result")}
    shapes = fits[0].answer.arrays["change"]
    assert {key: shape.shape for key, shape in shapes.items()} == {
        key: tuple(value.shape) for key, value in guarded.model()["model"].items()
    }
    assert {shape.kind for shape in shapes.values()} == {"float16"}
    saved = 2 * sum(value.numel() for value in guarded.model()["model"].values())
    (down, up), (before, exact) = per_round(half), per_round(plain)
    assert (down, up) == (before, exact - saved)


def test_fine_tuning_sends_no_model_back() -> None:
    found = {
        one.when: one for one in exchanges_of(made.experiment(), "tuned") if "fi" in one.action
    }
    assert set(found["first rounds"].answer.arrays) == {"model", "result"}
    assert set(found["last rounds"].answer.arrays) == {"result"}


def test_label_counts_leave_when_class_weights_are_global() -> None:
    local = made.experiment().local.model_copy(update={"class_weights": "global"})
    what = made.experiment(local=local.model_dump(exclude_none=True))
    asked = {one.action: one for one in exchanges_of(what, "fedavg")}
    assert asked["count"].when == "at the start"
    assert set(asked["count"].answer.arrays) == {"counts"}
    assert "count" not in {one.action for one in exchanges_of(made.experiment(), "fedavg")}


def test_an_outline_is_of_the_real_answers_shapes() -> None:
    """A hospital without an image to train on sends what one with images sends, in shape."""
    look = infer_reply_spec(made.experiment().arm("fedavg"), ["test"], guarded.model(), {}, round=5)
    parts = {k: v for k, v in look.arrays["result"].items() if k.startswith("parts/")}
    # 100 draws and the observed one.
    assert {shape.shape[0] for shape in parts.values()} == {101}


def test_the_first_difference_from_an_outline_is_told() -> None:
    look = ReplySpec({"model": {"w": ArraySpec((2,), "float32")}}, frozenset({"steps"}))
    assert look.difference({"model": {"w": ArraySpec((2,), "float32")}}, ["steps"]) is None
    assert look.difference(look.arrays, []) == "number steps is missing"
    more = {**look.arrays, "images": {"x": ArraySpec((1,), "uint8")}}
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
    verdict = preview_decision(site, what)
    told = {one.action: verdict(one) for one in exchanges_of(what, "fedavg")}
    assert told["test"] == "refused: min_patients: limit 5, asked test on fewer (test)"
    assert verdict(exchanges_of(what, "fedprox")[0]).startswith("refused: allow.algorithms")
    assert verdict(introduction(what)) == "allowed"


@pytest.mark.parametrize("arm", ["v1", "v1_labels", "relay_batch", "narrow", "labels_narrow", "v3"])
def test_the_frames_that_are_shown_are_those_that_a_site_sends(arm: str) -> None:
    """Names, shapes and kinds of each kind of frame; one step is played on a full batch."""
    what = split_experiment(rounds=2).arm(arm)
    data = made.federation().sites["nord"]
    task = local_task(what, data, model_of(what), seed=0, device=torch.device("cpu"))
    if what.local.class_weights != "none":
        task = replace(task, weights=balanced_weights(task.label_counts()))
    request = Request(
        site="nord", round=1, arrays={"model": initial_state(what, 0)}, memory={}, local=task
    )
    server = ServerHalf(cut_of(what), server_task(what, seed=0, device=CPU), initial_state(what, 0))
    half = streams_of(what)["fit"](request)
    sent, frame = {}, next(half)
    for _ in range(5):
        sent.setdefault(frame.kind, {}).update(specs_of({"": frame.arrays})[""])
        answer = Frame("take over", initial_state(what, 0))
        if frame.kind in ("forward", "backward"):
            answer = server.answer(frame)
        frame = half.send(answer)
    shown = next(
        one
        for one in exchanges_of(split_experiment(rounds=2), arm)
        if (one.action, one.when) == ("fit", "every batch")
    )
    assert sent == {kind: shown.answer.arrays[kind] for kind in sent}
    assert {"forward"} <= set(sent) <= set(shown.answer.arrays)
    labels = any("labels" in arrays for arrays in sent.values())
    assert labels == ("its labels" in shown.told) == (arm in ("v1_labels", "labels_narrow"))


@pytest.mark.parametrize("arm", [name for name in split_experiment().arm_names])
def test_what_is_shown_of_a_cut_arm_is_what_its_sites_are_asked(tmp_path: Path, arm: str) -> None:
    """The actions of a run, each with its reply; those of streams also with their frames."""
    what, asked = split_experiment(rounds=2, validate_every=1), set()
    app, door = site_apps(Known(made.federation()), CPU, disclosure=HOSPITAL)

    def noting(message: Message, node: Context) -> ClientCoroutine:
        asked.add(str(message.content.config_records["config"]["action"]))
        return door(message, node)

    folders = {name: tmp_path / name for name in made.federation().sites}
    grid = InProcessGrid(app, folders, door=noting)
    played = RunSpec(what, [arm], what.seeds, (), RunFolder(tmp_path / "run"), made.Told())
    server_app(played)(grid, guarded.context(tmp_path))
    shown = exchanges_of(what, arm)
    assert {one.action for one in shown if one.when == "every batch"} == asked
    assert all(one.told for one in shown if one.when == "every batch")

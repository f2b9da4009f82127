"""A coordinator that cheats asks for more than a run of the experiment asks: it is refused by name.

Each rule has its attack, which succeeds where the rule is switched off.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import test_guard as guarded
import torch
from flwr.app import Message
from split_arms import split_experiment
from test_bisection import moved

from fedrad.algorithms.base import PERSONAL, Frame
from fedrad.algorithms.evaluation import as_state
from fedrad.config import Experiment
from fedrad.core.state import Bundle, State
from fedrad.core.store import Versions
from fedrad.deployment.frame_spec import infer_frame_spec
from fedrad.deployment.site import guard as guards
from fedrad.deployment.site.evaluation_limits import EvaluationLimits
from fedrad.deployment.site.evaluation_places import check_place, models_of
from fedrad.deployment.site.parsed_message import TaskRequest
from fedrad.deployment.site.stream_guard import FrameFilter
from fedrad.errors import PolicyError
from fedrad.rounds.client_app import client_app, memory_folder
from fedrad.simulation.launch import Known

_runtime = guarded._runtime

METRICS = ("auroc", {"name": "sensitivity", "specificity": 0.9})
WITH_EDGES = made.experiment(metrics=METRICS)
END = WITH_EDGES.rounds + 1
EDGES = {"thresholds": as_state({"sensitivity": np.array([0.3])})}


def asked(
    folder: Path,
    action: str,
    number: int,
    send: Bundle | None = None,
    what: Experiment = WITH_EDGES,
    arm: str = "fedavg",
) -> Message:
    message = guarded.question(action, arm, send, what, number)
    return guarded.asked(folder, message)


def refusal(reply: Message) -> str:
    return guarded.reason(reply).removeprefix("PolicyError: nord: ")


@pytest.mark.parametrize(
    ("action", "number", "told"),
    [
        ("test", 0, f"evaluations: limit test in round {END}, asked test in round 0"),
        ("test", 2, f"evaluations: limit test in round {END}, asked test in round 2"),
        ("tune", END - 1, f"evaluations: limit tune in round {END}, asked tune in round {END - 1}"),
        (
            "validate",
            0,
            f"evaluations: limit validate in rounds 2 to {END}, asked validate in round 0",
        ),
        (
            "fit+validate",
            1,
            f"evaluations: limit validate in rounds 2 to {END}, asked validate in round 1",
        ),
    ],
)
def test_an_evaluation_in_a_round_that_no_run_tests_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, number: int, told: str
) -> None:
    """Each round's place would have models of its own: as many times more as there are rounds."""
    assert refusal(asked(tmp_path, action, number)) == told
    monkeypatch.setattr(guards, "check_place", lambda *_: None)
    assert not asked(tmp_path, action, number).has_error()


@pytest.mark.parametrize("action", ["test", "tune", "validate"])
def test_where_a_run_tests_it_is_answered(tmp_path: Path, action: str) -> None:
    """The rule would else hold by refusing everything."""
    assert not asked(tmp_path, action, END).has_error()


@pytest.mark.parametrize(
    ("changes", "answered"),
    [
        ({}, [2, 3, 4, 5, 6, 7, 8]),
        ({"validate_every": 3}, [4, 7, 8]),
        ({"validate_every": 0}, []),
        ({"held_out_sites": ("nord",)}, []),
    ],
)
def test_validation_is_answered_after_the_rounds_that_the_experiment_validates(
    tmp_path: Path, changes: dict[str, Any], answered: list[int]
) -> None:
    """Of seven rounds; a site that is held out has no part in it."""
    what = made.experiment(rounds=7, **changes)
    found = [n for n in range(9) if not asked(tmp_path, "validate", n, what=what).has_error()]
    assert found == answered


@pytest.mark.parametrize(
    ("what", "action", "told"),
    [
        (made.experiment(), "tune", "no tune in this arm"),
        (made.experiment(validate_every=0), "validate", "no validate in this arm"),
    ],
)
def test_an_evaluation_that_the_arm_has_no_use_for_is_refused(
    tmp_path: Path, what: Experiment, action: str, told: str
) -> None:
    """Cells of validation images are for thresholds: no metric of the experiment has one."""
    found = refusal(asked(tmp_path, action, END, what=what))
    assert found == f"evaluations: limit {told}, asked {action} in round {END}"


@pytest.mark.parametrize(
    ("arm", "changes", "test", "tune"),
    [
        ("fedavg", {}, 2, 0),
        ("fedavg", {"metrics": METRICS}, 2, 2),
        ("fedavg", {"metrics": METRICS, "quorum": 2}, 4, 2),
        ("fedavg", {"quorum": 2}, 2, 0),
        ("local", {"metrics": METRICS}, 2 + 15, 0),
        ("tuned", {}, 2 + 2 + 15, 0),
        ("tuned", {"held_out_sites": ("nord",)}, 2 + 16, 0),
        ("fedavg", {"held_out_sites": ("nord",), "metrics": METRICS}, 2, 0),
    ],
)
def test_a_place_has_as_many_models_as_the_arm_needs(
    tmp_path: Path, arm: str, changes: dict[str, Any], test: int, tune: int
) -> None:
    """Twice the models that an arm ends in; a matrix of the others' where each has its own."""
    what, site = made.experiment(**changes).arm(arm), guarded.site(tmp_path)
    assert models_of(site, what, "test") == test
    assert models_of(site, what, "tune") == tune
    assert models_of(site, what, "split-test") == models_of(site, what, "split-validate") == 0


@pytest.mark.parametrize(("arm", "models"), [("v1", 2), ("relay", 2), ("v3", 2)])
def test_a_cut_network_has_no_matrix_and_is_evaluated_over_streams_alone(
    tmp_path: Path, arm: str, models: int
) -> None:
    what, site = split_experiment().arm(arm), guarded.site(tmp_path)
    assert models_of(site, what, "split-test") == models
    assert models_of(site, what, "split-validate") == 3
    for action in ("test", "tune", "validate"):
        with pytest.raises(PolicyError, match=f"limit no {action} in this arm"):
            check_place(site, what, [action], what.rounds + 1)


def test_other_thresholds_for_the_same_model_are_another_question(tmp_path: Path) -> None:
    """Sensitivity is exact: a threshold that moves finds every score without any other model."""

    def sensitivity(edge: float) -> bool:
        send = {**moved(0.0), "thresholds": as_state({"sensitivity": np.array([edge])})}
        return not asked(tmp_path, "test", END, send).has_error()

    assert [sensitivity(edge) for edge in np.linspace(-1, 1, 20)].count(True) == 2
    assert sensitivity(-1.0)


@pytest.mark.parametrize(
    ("action", "edges", "told"),
    [
        ("test", {"sensitivity": torch.zeros(2)}, "1 number for each metric, asked shape [2]"),
        ("test", {"sensitivity": torch.zeros(())}, "1 number for each metric, asked shape []"),
        (
            "test",
            {"sensitivity": torch.zeros(1, dtype=torch.int64)},
            "1 number for each metric, asked shape [1]",
        ),
        (
            "test",
            {"sensitivity": torch.tensor([float("nan")])},
            "finite numbers, asked one that is not",
        ),
        (
            "test",
            {"sensitivity": torch.tensor([float("-inf")])},
            "finite numbers, asked one that is not",
        ),
        ("test", {"accuracy": torch.zeros(1)}, "sensitivity, asked others"),
        ("test", {}, "sensitivity, asked others"),
        (
            "test",
            {"sensitivity": torch.zeros(1), "auroc": torch.zeros(1)},
            "sensitivity, asked others",
        ),
        ("tune", {"sensitivity": torch.zeros(1)}, "with a test, asked with tune"),
        ("validate", {"sensitivity": torch.zeros(1)}, "with a test, asked with validate"),
    ],
)
def test_thresholds_of_another_form_are_refused_by_name(
    tmp_path: Path, action: str, edges: State, told: str
) -> None:
    """They were an exception's traceback in the site's log, or were taken."""
    reply = asked(tmp_path, action, END, {**moved(0.0), "thresholds": edges})
    assert refusal(reply) == f"thresholds: limit {told}"


def test_thresholds_where_no_metric_has_one_are_refused(tmp_path: Path) -> None:
    reply = asked(tmp_path, "test", END, {**moved(0.0), **EDGES}, made.experiment())
    assert refusal(reply) == "thresholds: limit none, asked others"


def test_thresholds_as_a_run_sends_them_are_taken(tmp_path: Path) -> None:
    """Also the marker of none."""
    none = {"thresholds": as_state({"sensitivity": np.array([np.nan])})}
    for edges in (EDGES, none):
        assert not asked(tmp_path, "test", END, {**moved(0.0), **edges}).has_error()


def trained(folder: Path, by: float) -> None:
    """Put a model into the site's own memory, as a round of fine-tuning does."""
    own = Versions(memory_folder(folder / "memory", "tuned", 0))
    own.write(4, {PERSONAL: moved(by)["model"]})


def own_of(folder: Path) -> Callable[[TaskRequest], State]:
    kept = Versions(memory_folder(folder / "memory", "tuned", 0))
    return lambda task: kept.before(task.round).get(PERSONAL, {})


@pytest.mark.parametrize(("action", "most"), [("test", 19), ("validate", 3)])
def test_a_model_of_the_site_s_own_is_another_question_each_time_that_it_is_trained(
    tmp_path: Path, action: str, most: int
) -> None:
    """What is sent is nothing, and the coordinator has a part in what the site trained."""
    source = Known(made.federation())
    app = client_app(source, guarded.CPU, disclosure=guarded.HOSPITAL)

    def answered(folder: Path, own: Callable[[TaskRequest], State]) -> int:
        answer = guards.guarded(app, guarded.site(folder), source, own=own)
        count = 0
        for by in np.linspace(-1, 1, most + 5):
            trained(folder, by)
            message = guarded.question(action, "tuned", {}, number=END)
            count += not answer(message, guarded.context(folder)).has_error()
        return count

    assert answered(tmp_path / "kept", own_of(tmp_path / "kept")) == most
    # A guard that does not see the site's own model takes them all for one.
    assert answered(tmp_path / "blind", lambda task: {}) == most + 5


def heard(body: float) -> str:
    """What a gate has heard of a stream in which the server's body answers with a number."""
    gate, what = FrameFilter(), split_experiment().arm("v1")
    streamed = infer_frame_spec(what, "split-validate", lambda split: 10)
    assert streamed is not None
    gate.allow("nord", streamed, lambda: None)

    def half() -> Any:
        yield Frame("forward", {"activations": torch.zeros(7, 8)})

    stream = gate(half())
    next(stream)
    with pytest.raises(StopIteration):
        stream.send(Frame("features", {"features": torch.full((7, 6), body)}))
    found = gate.heard
    assert found is not None
    return found


def test_another_body_behind_the_same_part_of_a_cut_network_is_another_question(
    tmp_path: Path,
) -> None:
    """The body is at the coordinator: frames of its own making call any one patient sick."""
    what, site = split_experiment(), guarded.site(tmp_path)
    questions = EvaluationLimits(tmp_path / "evaluated.jsonl")
    task = TaskRequest(1, 0, what, what.digest(), "v1", 0, 2, "split-validate", {"model": State()})

    def told(body: float) -> bool:
        try:
            questions.check(site, what.arm("v1"), task, lambda _: {}, heard(body))
        except PolicyError:
            return False
        return True

    assert [told(float(body)) for body in range(10)].count(True) == 3
    assert told(0.0)


def test_a_stream_that_was_never_opened_is_no_question() -> None:
    """An answer that was lost is given again from the site's memory, without a stream."""
    gate = FrameFilter()
    assert gate.heard is None
    heard(1.0)
    streamed = infer_frame_spec(split_experiment().arm("v1"), "split-validate", lambda split: 10)
    assert streamed is not None
    gate.allow("nord", streamed, lambda: None)
    assert gate.heard is None


@pytest.mark.parametrize("action", ["fit", "finetune", "share", "count"])
def test_a_site_that_is_held_out_trains_nothing_whatever_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Its hospital approved a test alone; weights that were trained there would leave."""
    what = made.experiment(held_out_sites=("nord",))
    arm = "tuned" if action == "finetune" else "fedavg"
    found = refusal(asked(tmp_path, action, 1, what=what, arm=arm))
    assert found == f"held_out_sites: limit test, asked {action}"
    assert not asked(tmp_path, "test", what.rounds + 1, what=what, arm=arm).has_error()
    monkeypatch.setattr(guards, "check_place", lambda *_: None)
    assert not asked(tmp_path, action, 1, what=what, arm=arm).has_error()

"""Garbage from a site is named, and never reaches a sum."""

from collections.abc import Callable

import pytest
import torch
from flwr.app import Message
from made import experiment

from fedrad.algorithms.base import Numbers
from fedrad.assemble import initial_state
from fedrad.core.state import State, clone
from fedrad.deployment.coordinator.reply_checker import ReplyChecker
from fedrad.deployment.packed_arrays import pack_arrays, unpack_arrays
from fedrad.rounds.records import pack
from fedrad.simulation.in_process import InProcessGrid

Spoil = Callable[[State, Numbers], None]


def missing(state: State, numbers: Numbers) -> None:
    """One array fewer."""
    state.pop(sorted(state)[0])


def extra(state: State, numbers: Numbers) -> None:
    """One array more, under a name that tells something."""
    state["Erika Mustermann"] = torch.zeros(1)


def other_shape(state: State, numbers: Numbers) -> None:
    """One array with another shape."""
    state[sorted(state)[0]] = torch.zeros(1, 1, 1)


def ten_times(state: State, numbers: Numbers) -> None:
    """Every array ten times its size."""
    for name in list(state):
        state[name] = torch.cat([state[name]] * 10)


def not_a_number(state: State, numbers: Numbers) -> None:
    """One weight that is no number."""
    state[sorted(state)[0]].view(-1)[0] = float("nan")


def other_kind(state: State, numbers: Numbers) -> None:
    """Double precision that nobody asked for."""
    for name in state:
        state[name] = state[name].double()


def endless(state: State, numbers: Numbers) -> None:
    """A loss that is not finite."""
    numbers["loss-sum"] = float("inf")


def negative(state: State, numbers: Numbers) -> None:
    """A weight below zero would take away from the others."""
    numbers["num-examples"] = -5.0


def no_weight(state: State, numbers: Numbers) -> None:
    """Without its weight an update cannot be averaged."""
    del numbers["num-examples"]


def exchange(spoil: Spoil | None) -> tuple[Message, Message]:
    """A question to fit, and an answer that may be spoilt."""
    InProcessGrid(None, {})  # type: ignore[arg-type]  # lets messages be made outside a runtime
    what = experiment()
    model = initial_state(what.arm("fedavg"), 0)
    config = {
        "experiment": what.text(),
        "arm": "fedavg",
        "seed": 0,
        "action": "fit",
        "server-round": 1,
    }
    question = Message(pack({"model": model}, config=config), 2, "train", group_id="1")
    state, numbers = clone(model), {"num-examples": 10.0, "steps": 2.0, "loss-sum": 1.0}
    if spoil is not None:
        spoil(state, numbers)
    reply = Message(pack({"model": state}, numbers, {"site": "nord"}), reply_to=question)
    reply.content = unpack_arrays(pack_arrays(reply.content))
    return question, reply


def test_an_honest_answer_passes() -> None:
    assert ReplyChecker(experiment()).check(*exchange(None)) is None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (missing, "is missing"),
        (extra, "an array that nobody asked for"),
        (other_shape, r"is float32 \[1, 1, 1\], not float32"),
        (ten_times, "not float32"),
        (not_a_number, "not finite"),
        (other_kind, "float64"),
        (endless, "a number is not finite"),
        (negative, "num-examples is negative"),
        (no_weight, "number num-examples is missing"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_garbage_is_named_and_left_out(spoil: Spoil, says: str) -> None:
    """The reason travels to a screen: it repeats no name that the site made up."""
    import re

    reason = ReplyChecker(experiment()).check(*exchange(spoil))
    assert reason is not None and re.search(says, reason), reason
    assert "Mustermann" not in reason

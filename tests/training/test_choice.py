"""How a device is asked what it can do: a way that fails or computes wrongly is not taken."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from together import tasks
from torch import nn

from fedrad.errors import ConfigError
from fedrad.training.devices.autotune import Memory, autotune
from fedrad.training.devices.concurrency_modes import (
    SMALL,
    ConcurrencyMode,
    Train,
    mode_refusal,
    trainer_of,
)
from fedrad.training.devices.deferred_training import TrainingCall, shortened
from fedrad.training.fit import Fitted


def asked(**changes: object) -> list[TrainingCall]:
    sites, start = tasks(**changes)
    return [TrainingCall(task, start, round=1) for task in sites]


def test_a_trial_takes_few_steps_of_each_site_in_proportion() -> None:
    """10, 4, 0 and 6 steps were asked for: of 5, the second site takes 2 and the last one 3."""
    short = shortened(asked(), 5)
    assert [one.task.steps_per_round() for one in short] == [5, 2, 3]
    assert [one.fit().steps for one in short] == [5, 2, 3]
    assert shortened(short, 5) == short


def fails(given: Sequence[TrainingCall]) -> list[Fitted]:
    raise RuntimeError("operation not permitted when stream is capturing")


def full(given: Sequence[TrainingCall]) -> list[Fitted]:
    raise torch.OutOfMemoryError("full")


def other_images(given: Sequence[TrainingCall]) -> list[Fitted]:
    """What a graph would do that reads its first batch again and again."""
    return [replace(one, round=2).fit() for one in given]


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (fails, r"it fails on this device \(RuntimeError\)"),
        (full, "not one site fits the device's memory"),
        (other_images, "its weights are not those of one site after the other"),
    ],
)
def test_a_way_that_does_not_do_what_it_should_is_left_out_and_named(
    train: Train, told: str
) -> None:
    choice = autotune(
        asked(),
        sites=4,
        trainers=lambda way: train if way is ConcurrencyMode.STACKED else trainer_of(way),
    )
    assert (choice.way, choice.at_once) == (ConcurrencyMode.EAGER, 1)
    (wrong,) = [part for part in choice.why.split("; ") if part.startswith("no stacked")]
    assert re.match(f"no stacked: {told}", wrong)


def test_one_site_that_does_not_fit_at_all_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        autotune(asked(), sites=4, trainers=lambda way: full)


def test_the_peak_is_that_of_the_site_with_the_most_images() -> None:
    """Here the second: nord is left out of what is asked."""
    seen = []

    def peak_of(play: Callable[[], object]) -> int:
        seen.append(play())
        return 100

    choice = autotune(
        asked()[1:], sites=9, forced=ConcurrencyMode.STACKED, memory=Memory(lambda: 500, peak_of)
    )
    assert (choice.at_once, [found.examples for found in seen]) == (4, [15])
    assert choice.why == "as asked for; one site takes 0 MB of 0 MB that are free"


def test_large_networks_are_stacked_only_when_that_is_asked_for() -> None:
    given = asked()
    given[0].task.model.more = nn.Linear(SMALL, 1)
    assert f"no stacked: it is for networks of {SMALL} parameters" in autotune(given, sites=4).why
    assert mode_refusal(ConcurrencyMode.STACKED, given) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda one: replace(one, correction={}), "the algorithm corrects gradients"),
        (lambda one: replace(one, rounds=2), "several rounds are trained in one go"),
        (lambda one: replace(one, penalty=lambda p, s: p[0].sum()), "a penalty of its own"),
        (lambda one: replace(one, task=one.task.varied(precision=torch.bfloat16)), "float32"),
        (
            lambda one: replace(one, task=one.task.varied(weights=torch.ones(2, 2))),
            "class weights of its own",
        ),
    ],
)
def test_what_a_stack_cannot_express_is_refused(
    change: Callable[[TrainingCall], TrainingCall], told: str
) -> None:
    given = [change(one) for one in asked()[:1]] + asked()[1:]
    assert told in (mode_refusal(ConcurrencyMode.STACKED, given) or "")
    with pytest.raises(ConfigError, match=r"--concurrency stacked: arm x, fit: .*; say auto"):
        autotune(given, sites=4, forced=ConcurrencyMode.STACKED, where="arm x, fit")


def test_arrays_that_are_not_trained_cannot_be_stacked() -> None:
    """They would be those of another site."""
    given = asked()
    next(given[0].task.model.parameters()).requires_grad_(False)
    assert "not trained" in (mode_refusal(ConcurrencyMode.STACKED, given) or "")

"""Sites trained as a stack are sites trained one by one, within 1e-5 after two epochs."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from together import SGD, TASK, close, tasks
from torch import Tensor, nn

from fedrad.errors import ConfigError, TrainingDivergedError
from fedrad.training.devices.stacked import check_stackable, fit_stacked


def proximal(params: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    apart = [(p - s).square().sum() for p, s in zip(params, start, strict=True)]
    return 0.1 * torch.stack(apart).sum()


@pytest.mark.parametrize(
    ("changes", "penalty"),
    [
        ({}, None),
        ({"optimizer": {"name": "adam", "lr": 0.001}}, None),
        ({"clip": 0.5}, proximal),
        ({"epochs": None, "steps": 3}, None),
    ],
)
def test_a_stack_is_one_site_after_the_other(changes: dict[str, Any], penalty: Any) -> None:
    """10, 4, 0 and 6 steps, last batches of 2, 3 and 5 images, labels that were not read."""
    sites, start = tasks(**changes)
    stacked = fit_stacked(sites, [start] * 4, round=2, penalty=penalty)
    for task, found in zip(sites, stacked, strict=True):
        alone = task.fit(start, round=2, penalty=penalty)
        assert (found.examples, found.steps) == (alone.examples, alone.steps)
        assert found.loss == pytest.approx(alone.loss, abs=1e-5)
        close(found.state, alone.state)


def test_each_site_goes_on_from_its_own_weights() -> None:
    """Personal models: the sites' starts differ."""
    sites, start = tasks()
    starts = [{name: value + 0.01 * k for name, value in start.items()} for k in range(4)]
    for k, found in enumerate(fit_stacked(sites, starts, round=1)):
        close(found.state, sites[k].fit(starts[k], round=1).state)


def test_augmented_images_are_those_of_one_site_after_the_other() -> None:
    def noise(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    sites, start = tasks(augment=noise)
    for task, found in zip(sites, fit_stacked(sites, [start] * 4, round=1), strict=True):
        close(found.state, task.fit(start, round=1).state)


def test_a_site_that_diverges_is_named() -> None:
    sites, start = tasks(optimizer=SGD | {"lr": 1e30})
    with pytest.raises(TrainingDivergedError, match="nord: round 1"):
        fit_stacked(sites, [start] * 4, round=1)


@pytest.mark.parametrize(
    ("layer", "told"), [(nn.BatchNorm2d(1), "norm: group"), (nn.Dropout(), "dropout")]
)
def test_images_that_depend_on_each_other_or_on_chance_are_refused(
    layer: nn.Module, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_stackable(nn.Sequential(nn.Conv2d(TASK.input[0], 1, 1), layer))


@pytest.mark.gpu
def test_a_stack_on_a_gpu_is_the_cpu_within_rounding() -> None:
    sites, start = tasks("cuda")
    there = [found.state for found in fit_stacked(sites, [start] * 4, round=1)]
    here, _ = tasks()
    for task, found in zip(here, there, strict=True):
        close(task.fit(start, round=1).state, found, atol=1e-3)

"""What a captured step computes: on a CPU the same code without the graph, on a GPU the replay."""

from typing import Any

import pytest
import torch
from together import SGD, close, tasks
from torch import nn

from fedrad.errors import ConfigError, TrainingDivergedError
from fedrad.training.devices.capturable import CAPTURABLE
from fedrad.training.devices.cuda_graph import GraphedFit
from fedrad.training.optimizers import OPTIMIZERS

OPTIONS = [
    {"name": "sgd", "lr": 0.1},
    SGD,
    SGD | {"nesterov": True},
    {"name": "adam", "lr": 0.01, "weight_decay": 0.01},
    {"name": "adamw", "lr": 0.01},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_optimiser_of_tensors_takes_the_same_steps(options: dict[str, Any]) -> None:
    """And the same again after a reset, as a new one would."""
    rest = {key: value for key, value in options.items() if key != "name"}
    gradients = [[torch.randn(3, 2), torch.randn(4)] for _ in range(5)]
    one = [torch.ones(3, 2, dtype=torch.float64), torch.ones(4, dtype=torch.float64)]
    capturable = CAPTURABLE[options["name"]](one, **rest)
    for _ in range(2):
        other = [p.clone() for p in one]
        step = OPTIMIZERS[options["name"]](other, **rest)
        for grads in gradients:
            wide = [g.double() for g in grads]
            capturable.step(wide)
            step(wide)
        # Adam's corrections are float32 on the device.
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
        capturable.reset()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sites_trained_by_one_step_are_sites_trained_one_by_one(
    options: dict[str, Any], device: str
) -> None:
    """Momentum of one site must not reach the next, nor a short batch be filled up."""
    sites, start = tasks(device, optimizer=options)
    graphed = GraphedFit(sites[0])
    for task in sites:
        found, alone = graphed.fit(task, start, round=2), task.fit(start, round=2)
        assert (found.examples, found.steps) == (alone.examples, alone.steps)
        assert found.loss == pytest.approx(alone.loss, abs=1e-4)
        close(found.state, alone.state, atol=1e-5 if device == "cpu" else 1e-3)


def test_dropout_and_divergence_are_refused() -> None:
    sites, start = tasks(optimizer=SGD | {"lr": 1e30})
    with pytest.raises(TrainingDivergedError, match="nord: round 1"):
        GraphedFit(sites[0]).fit(sites[0], start, round=1)
    sites[0].model.append(nn.Dropout())
    with pytest.raises(ConfigError, match="dropout"):
        GraphedFit(sites[0])

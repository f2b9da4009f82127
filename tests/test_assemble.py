"""What an experiment asks for that cannot be had, told before anything is read or trained."""

import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fedrad.assemble import check_arms, check_model, device_of
from fedrad.config import Experiment, from_text
from fedrad.errors import ConfigError, MissingError

TEXT = """
name: tiny
task: {name: binary, labels: [lesion], input: [1, 32, 32]}
data: {name: phantom}
model: {name: cnn, width: 4}
local: {epochs: 1}
rounds: 4
algorithm: fedavg
"""
PLAIN = from_text(TEXT)


def experiment(**changes: object) -> Experiment:
    return Experiment.model_validate(PLAIN.model_dump() | changes)


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        (4, r"arms\.fedavg: 4 rounds at home of 4 in all leave none to federate"),
        (9, r"arms\.fedavg: 9 rounds at home of 4"),
        (0, r"arms\.fedavg\.wrap\.0\.rounds: must be greater than 0, found 0"),
        (-1, r"arms\.fedavg\.wrap\.0\.rounds: must be greater than 0, found -1"),
    ],
)
def test_fine_tuning_leaves_rounds_to_federate_and_has_some_itself(
    rounds: int, message: str
) -> None:
    """Otherwise the arm would be `local`, or plain federated averaging, by another name."""
    with pytest.raises(ConfigError, match=message):
        check_arms(experiment(wrap=[{"name": "finetune", "rounds": rounds}]))
    check_arms(experiment(wrap=[{"name": "finetune", "rounds": 3}]))


def test_a_wrapper_that_does_not_go_with_what_is_inside_it_is_told_with_its_place() -> None:
    arms = {"fedavg": {}, "both": {"wrap": ["float16_updates", "central_dp"]}}
    primary = {"arm": "both", "against": "fedavg", "metric": "auroc"}
    with pytest.raises(ConfigError, match=r"^arms\.both\.wrap\.1: central_dp: clips the change"):
        check_arms(experiment(arms=arms, primary=primary))


def test_an_arm_that_is_not_played_need_not_fit_the_number_of_rounds() -> None:
    """`--arm fedavg --set rounds=1` is a first try, whatever the other arms want."""
    arms = {"fedavg": {}, "finetune": {"wrap": [{"name": "finetune", "rounds": 5}]}}
    primary = {"arm": "fedavg", "against": "finetune", "metric": "auroc"}
    tried = experiment(arms=arms, primary=primary)
    check_arms(tried, ["fedavg"])
    for played in (["finetune"], ["fedavg", "finetune"], []):
        with pytest.raises(ConfigError, match=r"arms\.finetune: 5 rounds at home of 4"):
            check_arms(tried, played)


@pytest.mark.parametrize("name", ["foo", "cuda:x", "cuda:", "CPU", "meta", "", "cuda:-1"])
def test_a_device_that_is_no_device_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^--device {re.escape(name)}: say cpu, cuda, or cuda:1"):
        device_of(name)


def test_a_gpu_beyond_the_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("cuda:0").index == 0
    with pytest.raises(MissingError, match="has 1 CUDA devices; they count from 0"):
        device_of("cuda:1")


class OnlyShapes(TorchDispatchMode):
    """Refuses every operation whose result takes memory."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Play an operation, and look where its result lies."""
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.numel() > 1:
            assert found.device.type == "meta", func
        return found


@pytest.mark.parametrize(
    "model",
    [
        {"name": "cnn", "width": 5_000},
        {"name": "cnn", "width": 10**9},
        {"name": "cnn", "width": 10**30},
        {"name": "mlp", "hidden": [10**9, 10**9]},
        {"name": "mlp", "hidden": [10**15, 10**15]},
    ],
)
def test_a_model_larger_than_any_memory_is_refused_before_it_is_made(model: object) -> None:
    """Making it would take the machine with it; its shapes alone say how large it is."""
    with (
        OnlyShapes(),
        pytest.raises(ConfigError, match=r"^model: (has [\d,]+ parameters|its arrays are larger)"),
    ):
        check_model(experiment(model=model))
    check_model(experiment())

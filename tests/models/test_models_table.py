"""Claims that hold for every model of the table, and so for the next one too."""

from copy import deepcopy

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.models import MODELS
from fedrad.registry import build

IMAGE = Task(name="multiclass", labels=("A", "B", "C"), input=(1, 32, 40))
TABLE = Task(name="multiclass", labels=("A", "B", "C"), input=(13,))


def task_of(name: str) -> Task:
    return TABLE if name == "mlp" else IMAGE


@pytest.fixture(scope="module", params=sorted(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> nn.Module:
    """The network that all claims of a name share; none of them may change it."""
    torch.manual_seed(0)
    return build(MODELS, name, task_of(name), where="model")


def test_every_model_gives_one_logit_a_label_also_for_no_image(name: str, model: nn.Module) -> None:
    """A site may have no image in a split; its scores are then an empty array, not an error."""
    task = task_of(name)
    assert model(torch.zeros(2, *task.input)).shape == (2, 3)
    assert model.eval()(torch.zeros(0, *task.input)).shape == (0, 3)


def test_an_image_s_logits_do_not_depend_on_what_else_is_in_the_batch(
    name: str, model: nn.Module
) -> None:
    """In training mode: DP-SGD's bound for one patient needs it, and BatchNorm breaks it."""
    x = torch.randn(2, *task_of(name).input)
    together = model.train()(x)
    alone = torch.cat([model(x[:1]), model(x[1:])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_no_model_is_batch_normalised_or_works_in_place(model: nn.Module) -> None:
    """The defaults are fit for DP-SGD: Opacus' own validator finds nothing to mend."""
    assert not any(isinstance(part, nn.modules.batchnorm._NormBase) for part in model.modules())
    assert not any(getattr(part, "inplace", False) for part in model.modules())
    assert ModuleValidator.validate(model) == []


def test_per_image_gradients_sum_to_the_gradient(name: str, model: nn.Module) -> None:
    """With Opacus' hooks set, nothing in place is in their way and no layer is forgotten."""
    x = torch.randn(2, *task_of(name).input, requires_grad=True)
    plain = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    hooked = GradSampleModule(deepcopy(model), loss_reduction="sum")
    hooked(x).sum().backward()
    for p, gradient in zip(hooked.parameters(), plain, strict=True):
        scale = gradient.abs().max().item()
        torch.testing.assert_close(p.grad_sample.sum(0), gradient, atol=1e-4 * scale, rtol=1e-3)


def test_a_model_is_a_chain_that_can_be_cut_between_any_two_children(
    name: str, model: nn.Module
) -> None:
    """Split learning sends what one child returns; running the children in turn is the model."""
    x = torch.randn(2, *task_of(name).input)
    whole, part = model(x), x
    for _, child in model.named_children():
        part = child(part)
    assert torch.equal(whole, part)
    assert len(list(model.named_children())) >= 3


def test_a_model_is_drawn_from_the_seed_alone(name: str, model: nn.Module) -> None:
    """The arms of one seed start from the same weights."""
    torch.manual_seed(0)
    again = build(MODELS, name, task_of(name), where="model").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"mlp"}))
def test_a_network_for_images_refuses_a_table(name: str) -> None:
    """The message says what the task has."""
    with pytest.raises(ConfigError, match=r"needs images.*task.input is \[13\]"):
        build(MODELS, name, TABLE, where="model")

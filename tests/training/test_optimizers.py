from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from fedrad.errors import ConfigError
from fedrad.registry import build
from fedrad.training.optimizers import OPTIMIZERS, adam, adamw, sgd

SGD = [
    {"lr": 0.1, "momentum": momentum, "weight_decay": decay, "nesterov": nesterov}
    for momentum, decay, nesterov in product((0.0, 0.9), (0.0, 0.01), (False, True))
    if momentum or not nesterov  # torch refuses Nesterov without momentum
]
ADAM = [
    {"lr": 0.01, "betas": betas, "eps": eps, "weight_decay": decay}
    for betas, eps, decay in product(((0.9, 0.999), (0.5, 0.9)), (1e-8, 1e-3), (0.0, 0.1))
]
CASES = [
    *((sgd, torch.optim.SGD, options) for options in SGD),
    *((adam, torch.optim.Adam, options) for options in ADAM),
    *((adamw, torch.optim.AdamW, options) for options in ADAM),
]


def drawn(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator) for shape in ((3, 2), (5,), ())]


@pytest.mark.parametrize(("ours", "theirs", "options"), CASES)
def test_steps_are_those_of_torch_optim(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    """Six steps, so that momenta and their bias corrections matter."""
    mine = drawn(0)
    step = ours(mine, **options)
    reference = [p.requires_grad_() for p in drawn(0)]
    optimizer = theirs(reference, **options)
    for number in range(1, 7):
        step(drawn(number))
        for p, gradient in zip(reference, drawn(number), strict=True):
            p.grad = gradient
        optimizer.step()
    for p, q in zip(mine, reference, strict=True):
        torch.testing.assert_close(p, q.detach(), atol=1e-7, rtol=3e-7)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_gradients_are_left_as_they_are(name: str) -> None:
    """autograd.grad may hand out one tensor for two parameters; changing it would count twice."""
    gradients, before = drawn(1), drawn(1)
    spec = {"name": name, "lr": 0.1, "weight_decay": 0.1}
    step = build(OPTIMIZERS, spec, drawn(0), where="local.optimizer")
    step(gradients)
    step(gradients)
    assert all(torch.equal(now, then) for now, then in zip(gradients, before, strict=True))


def test_the_first_momentum_is_no_view_of_the_gradient() -> None:
    """Otherwise the second step would change the first gradient."""
    gradients, before = drawn(1), drawn(1)
    step = sgd(drawn(0), lr=0.1, momentum=0.9)
    step(gradients)
    step(drawn(2))
    assert all(torch.equal(now, then) for now, then in zip(gradients, before, strict=True))


def test_options_out_of_range_are_refused_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r"local\.optimizer\.lr: .*greater than 0, found -1"):
        build(OPTIMIZERS, {"name": "sgd", "lr": -1}, [], where="local.optimizer")
    with pytest.raises(ConfigError, match=r"momentum.*less than 1, found 1"):
        build(OPTIMIZERS, {"name": "sgd", "lr": 1, "momentum": 1}, [], where="local.optimizer")

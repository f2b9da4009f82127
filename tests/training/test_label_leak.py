"""Attacks on labels tell them where gradients do, and nothing where they do not."""

import pytest
import torch
from torch.nn import functional as F

from fedrad.training.label_leak import label_leak


def test_the_gradient_by_a_single_logit_tells_every_label() -> None:
    """It is p - y: negative for a positive image, positive for a negative one."""
    draws = torch.Generator().manual_seed(0)
    labels = (torch.rand(100, 1, generator=draws) < 0.2).float()
    logits = torch.randn(100, 1, generator=draws).requires_grad_()
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    gradients = torch.autograd.grad(loss, logits)[0]
    assert label_leak(gradients, labels[:, 0])["direction"] == 1.0


def test_of_a_rare_class_and_an_unsure_model_the_norm_tells() -> None:
    """A model that says 0.1 to all: |p - y| is 0.9 for a positive and 0.1 for a negative."""
    labels = torch.tensor([1.0] * 5 + [0.0] * 45)
    gradients = (0.1 - labels)[:, None]
    assert label_leak(gradients, labels)["norm"] == 1.0
    assert label_leak(gradients, 1 - labels)["norm"] == 1.0


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_gradients_that_are_all_alike_tell_nothing(constant: float) -> None:
    labels = torch.tensor([1.0, 0.0] * 20)
    gradients = torch.full((40, 3), constant)
    assert label_leak(gradients, labels) == {"norm": 0.5, "direction": 0.5}


def test_noise_tells_about_nothing() -> None:
    draws = torch.Generator().manual_seed(0)
    labels = (torch.rand(2000, generator=draws) < 0.3).float()
    found = label_leak(torch.randn(2000, 8, generator=draws), labels)
    assert all(abs(value - 0.5) < 0.05 for value in found.values())


def test_labels_that_were_not_read_do_not_count_and_one_class_is_undefined() -> None:
    gradients = torch.tensor([[1.0], [1.0], [-1.0], [5.0]])
    labels = torch.tensor([1.0, 1.0, 0.0, float("nan")])
    assert label_leak(gradients, labels)["direction"] == 1.0
    assert label_leak(gradients, torch.ones(4)) == {"norm": None, "direction": None}

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from fedrad.config import Task
from fedrad.training.objective import balanced_weights, label_counts, objective

BINARY = Task(name="binary", labels=("a",), input=(2,))
MULTICLASS = Task(name="multiclass", labels=("a", "b", "c"), input=(2,))
MULTILABEL = Task(name="multilabel", labels=("a", "b", "c"), input=(2,))
TASKS = (BINARY, MULTICLASS, MULTILABEL)
NAN = float("nan")


def labels(task: Task, images: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    high = task.outputs if task.name == "multiclass" else 2
    return torch.randint(high, (images, task.columns), generator=generator).float()


def logits(task: Task, images: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, task.outputs, generator=generator, requires_grad=True)


def test_with_every_label_read_the_loss_is_torch_s() -> None:
    """Masking is only for what was not read."""
    for task in (BINARY, MULTILABEL):
        expected = functional.binary_cross_entropy_with_logits(logits(task), labels(task))
        torch.testing.assert_close(objective(task).loss(logits(task), labels(task)), expected)
    y = labels(MULTICLASS)
    expected = functional.cross_entropy(logits(MULTICLASS), y[:, 0].long())
    torch.testing.assert_close(objective(MULTICLASS).loss(logits(MULTICLASS), y), expected)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_was_not_read_changes_neither_loss_nor_gradient(task: Task) -> None:
    """A row without labels is as if it were not there."""
    of, z, y = objective(task), logits(task), labels(task)
    y[5:] = NAN
    loss, short = of.loss(z, y), of.loss(z[:5], y[:5])
    torch.testing.assert_close(loss, short)
    gradient = torch.autograd.grad(loss, z)[0]
    assert torch.equal(gradient[5:], torch.zeros_like(gradient[5:]))
    torch.testing.assert_close(gradient, torch.autograd.grad(short, z)[0])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_batch_in_which_nothing_was_read_has_loss_and_gradient_zero(task: Task) -> None:
    """Not nan: one such batch must not spoil a model."""
    z = logits(task)
    loss = objective(task).loss(z, torch.full((8, task.columns), NAN))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, z)[0].abs().max() == 0


def test_a_finding_not_read_leaves_the_other_findings_of_the_image() -> None:
    """Multilabel films are often read for some findings only."""
    z, y = torch.zeros(1, 3), torch.tensor([[1.0, NAN, 0.0]])
    losses = objective(MULTILABEL).losses(z, y)
    torch.testing.assert_close(losses, torch.tensor([[1.0, 0.0, 1.0]]) * float(np.log(2)))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_losses_over_the_number_of_labels_read(task: Task, weighted: bool) -> None:
    """The law in the class's docstring, with weights too."""
    y = labels(task)
    y[0, 0] = NAN
    of = objective(task, balanced_weights(label_counts(task, y)) if weighted else None)
    losses = of.losses(logits(task), y)
    assert losses.shape == y.shape
    torch.testing.assert_close(of.loss(logits(task), y), losses.sum() / (~y.isnan()).sum())


def test_weights_are_factors_of_the_losses() -> None:
    """Binary: (negative, positive). Multiclass: one a class."""
    plain, y = objective(BINARY).losses(logits(BINARY), labels(BINARY)), labels(BINARY)
    found = objective(BINARY, torch.tensor([[0.5, 3.0]])).losses(logits(BINARY), y)
    torch.testing.assert_close(found, plain * torch.where(y == 1, 3.0, 0.5))
    plain, y = (
        objective(MULTICLASS).losses(logits(MULTICLASS), labels(MULTICLASS)),
        labels(MULTICLASS),
    )
    weights = torch.tensor([1.0, 2.0, 3.0])
    found = objective(MULTICLASS, weights).losses(logits(MULTICLASS), y)
    torch.testing.assert_close(found, plain * (1 + y))


def test_counts_leave_out_what_was_not_read() -> None:
    """Negative and positive by finding; classes that do not occur count 0."""
    y = torch.tensor([[1.0, NAN, 0.0], [1.0, 0.0, NAN]])
    assert label_counts(MULTILABEL, y).tolist() == [[0, 2], [1, 0], [1, 0]]
    assert label_counts(MULTICLASS, torch.tensor([[0.0], [0.0], [NAN]])).tolist() == [2, 0, 0]


def test_balanced_weights_are_scikit_learn_s() -> None:
    """n / (classes * n_c); so the examples' mean weight is 1."""
    y = labels(MULTICLASS, images=40)
    counts = label_counts(MULTICLASS, y)
    weights = balanced_weights(counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y[:, 0].numpy())
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert (weights * counts).sum().item() == pytest.approx(40)


def test_a_class_that_does_not_occur_has_weight_1() -> None:
    """Neither infinite nor nan; the classes that occur still have the mean 1."""
    assert balanced_weights(torch.tensor([0.0, 6.0, 2.0])).tolist() == pytest.approx([1, 2 / 3, 2])
    assert balanced_weights(torch.zeros(2)).tolist() == [1, 1]


def test_probabilities_are_sigmoids_or_a_softmax() -> None:
    """Classes exclude one another, findings do not."""
    z = torch.tensor([[0.0, 0.0, float(np.log(2))]])
    torch.testing.assert_close(
        objective(MULTICLASS).probabilities(z), torch.tensor([[0.25, 0.25, 0.5]])
    )
    torch.testing.assert_close(
        objective(MULTILABEL).probabilities(z), torch.tensor([[0.5, 0.5, 2 / 3]])
    )

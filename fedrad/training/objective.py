"""What is minimised: cross-entropy over the labels that were read, and the class weights in it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedrad.config import Task

__all__ = ["Objective", "balanced_weights", "few_patients", "label_counts", "objective"]

Losses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss and the probabilities that go with it.

    Law: `loss(logits, y) == losses(logits, y).sum() / number of labels read`.

    Args:
        loss: (logits [n, k], y [n, columns]) -> scalar, the mean over the labels that were read;
            0, with a gradient of 0, if none was.
        losses: the same -> [n, columns], 0 where not read.
        probabilities: logits [n, k] -> [n, k]; in double where the logits are.
    """

    loss: Losses
    losses: Losses
    probabilities: Callable[[Tensor], Tensor]


def objective(task: Task, weights: Tensor | None = None) -> Objective:
    """Return the objective of a task.

    Args:
        task: binary and multilabel take the sigmoid of each logit, multiclass the softmax of all.
        weights: [columns, 2] for negative and positive labels, or [classes]; factors of the losses.
            The loss divides by the number of labels, not (as torch does) by their weights' sum, so
            a batch's share in the gradient does not depend on what else is in it.

    >>> of = objective(Task(name="binary", labels=("lesion",), input=(2,)))
    >>> of.loss(torch.zeros(2, 1), torch.tensor([[1.0], [float("nan")]])).item()  # log 2
    0.6931471824645996
    """
    classes = task.name == "multiclass"
    losses = _cross_entropy(weights) if classes else _binary_cross_entropy(weights)
    probabilities = _softmax if classes else torch.sigmoid

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        read = (y == y).sum().clamp(min=1)  # nan is unequal to itself
        return losses(logits, y).sum() / read

    return Objective(loss, losses, probabilities)


def label_counts(task: Task, y: Tensor) -> Tensor:
    """Return how often each label occurs.

    Args:
        task: says what y means.
        y: [n, columns], nan where not read.

    Returns:
        float64: [classes] for multiclass, else [columns, 2], negative and positive.

    >>> task = Task(name="binary", labels=("lesion",), input=(2,))
    >>> label_counts(task, torch.tensor([[1.0], [0.0], [0.0], [float("nan")]])).tolist()
    [[2.0, 1.0]]
    """
    if task.name == "multiclass":
        classes = y[:, 0][~y[:, 0].isnan()].long()
        return torch.bincount(classes, minlength=task.outputs).double()
    return torch.stack([(y == 0).sum(0), (y == 1).sum(0)], dim=1).double()


def few_patients(task: Task, y: Tensor, patient: np.ndarray, least: int) -> bool:
    """Return whether some patients, but fewer than `least`, have one of the labels.

    Args:
        task: says what y means.
        y: [n, columns], nan where not read.
        patient: [n] of each row.
        least: patients.

    >>> task = Task(name="binary", labels=("lesion",), input=(2,))
    >>> few_patients(task, torch.tensor([[1.0], [0.0], [0.0]]), np.array([7, 8, 9]), least=2)
    True
    """
    classes = range(task.outputs) if task.name == "multiclass" else range(2)
    labels = y.numpy()
    having = [len(np.unique(patient[column == one])) for column in labels.T for one in classes]
    return any(0 < count < least for count in having)


def balanced_weights(counts: Tensor) -> Tensor:
    """Return weights that give each class of a finding the same sum, and the examples the mean 1.

    Args:
        counts: [..., classes], as from `label_counts`, of one site or added over sites.

    Returns:
        float32 of the same shape; 1 for a class that does not occur.

    >>> balanced_weights(torch.tensor([[30.0, 10.0]]))
    tensor([[0.6667, 2.0000]])
    """
    present = (counts > 0).sum(-1, keepdim=True)
    fair = counts.sum(-1, keepdim=True) / (present * counts)
    return torch.where(counts > 0, fair, 1.0).float()


def _binary_cross_entropy(weights: Tensor | None) -> Losses:
    def losses(logits: Tensor, y: Tensor) -> Tensor:
        read = y == y
        known = torch.where(read, y, 0.0)
        each = functional.binary_cross_entropy_with_logits(logits, known, reduction="none")
        if weights is not None:
            each = each * torch.where(known > 0, weights[:, 1], weights[:, 0])
        return each * read

    return losses


def _cross_entropy(weights: Tensor | None) -> Losses:
    def losses(logits: Tensor, y: Tensor) -> Tensor:
        # A negative class is one that cross_entropy leaves out.
        classes = y[:, 0].nan_to_num(-1).long()
        each = functional.cross_entropy(
            logits, classes, weight=weights, ignore_index=-1, reduction="none"
        )
        return each[:, None]

    return losses


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)

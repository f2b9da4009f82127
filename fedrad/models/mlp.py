"""A small network for tables."""

from collections import OrderedDict
from math import prod

from torch import nn

from fedrad.config import Task
from fedrad.errors import ConfigError

__all__ = ["mlp"]


def mlp(task: Task, *, hidden: tuple[int, ...] = (32, 16)) -> nn.Sequential:
    """Return a multi-layer perceptron; without hidden layers it is logistic regression.

    Args:
        task: its input, flattened, is the first layer's width.
        hidden: widths of the hidden layers.

    Returns:
        Children `layer1`, `layer2`, ... and `head`; [n, ...] -> logits [n, outputs]. Weights are
        drawn from torch's global generator.

    Raises:
        ConfigError: a width is not positive.

    >>> task = Task(name="binary", labels=("disease",), input=(13,))
    >>> model = mlp(task, hidden=(4,))
    >>> [name for name, _ in model.named_children()], model(torch.zeros(2, 13)).shape
    (['layer1', 'head'], torch.Size([2, 1]))
    """
    if any(width < 1 for width in hidden):
        raise ConfigError(f"model.hidden: widths are 1 or more, found {list(hidden)}")
    widths = (prod(task.input), *hidden)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(zip(widths, hidden, strict=False), start=1):
        layers[f"layer{number}"] = nn.Sequential(nn.Flatten(), nn.Linear(before, after), nn.ReLU())
    layers["head"] = nn.Sequential(nn.Flatten(), nn.Linear(widths[-1], task.outputs))
    return nn.Sequential(layers)

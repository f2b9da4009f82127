"""Well-known networks, made fit for federations, small sites and grey images.

GroupNorm in place of BatchNorm (Wu and He, ECCV 2018, https://arxiv.org/abs/1803.08494), because
BatchNorm mixes the patients of a batch, which DP-SGD cannot account for, and its running statistics
differ from site to site. Any number of channels. Nothing in place, which Opacus' hooks on gradients
do not bear. Every network is a chain of named children and can be cut between any two.

Written here, tested to give torchvision's numbers: `import torchvision` imports `torch._dynamo`,
two seconds and more in every worker, and its networks would have to be taken apart.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import gcd
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.models.pretrained import pretrained

__all__ = ["densenet121", "resnet18", "resnet34", "resnet50"]

Norm = Literal["group", "batch"]
Layer = Callable[[int], nn.Module]

_GROUPS = 32
_SMALLEST = 29  # pixels; below, DenseNet's last pooling has nothing left to pool


def resnet18(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-18, 11.2 million parameters.

    Args:
        task: images of 29 pixels or more a side.
        norm: "group", or "batch" for FedBN and comparisons.
        weights: a state_dict on this machine (.safetensors, .pt, .pth), in torchvision's names,
            whose classifier is left out, or in this network's own names, which is taken whole. A
            file for 3 channels fits 1: its stem is summed over the channels.

    Returns:
        Children `stem`, `layer1` to `layer4`, `head`; [n, c, h, w] -> logits [n, outputs]. What no
        file gives is drawn from torch's global generator.

    Raises:
        ConfigError: the task has no images, or too small ones, or the file does not fit.
        MissingError: there is no such file.

    He, Zhang, Ren, Sun, CVPR 2016, https://arxiv.org/abs/1512.03385.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> [name for name, _ in resnet18(task).named_children()]
    ['stem', 'layer1', 'layer2', 'layer3', 'layer4', 'head']
    """
    return _resnet(task, (2, 2, 2, 2), False, norm, weights)


def resnet34(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-34, 21.3 million parameters; arguments as for `resnet18`.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> [len(layer) for layer in resnet34(task)[1:5]]
    [3, 4, 6, 3]
    """
    return _resnet(task, (3, 4, 6, 3), False, norm, weights)


def resnet50(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-50, 23.5 million parameters; arguments as for `resnet18`.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> resnet50(task).head.fc.in_features
    2048
    """
    return _resnet(task, (3, 4, 6, 3), True, norm, weights)


def densenet121(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a DenseNet-121, 6.9 million parameters; arguments as for `resnet18`.

    Children are `stem`, `denseblock1`, `transition1` to `denseblock4`, `head`.

    Huang, Liu, van der Maaten, Weinberger, CVPR 2017, https://arxiv.org/abs/1608.06993.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> densenet121(task)(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 1])
    """
    _check(task, "densenet121")
    layer = _norm(norm)
    children = OrderedDict(stem=_stem(task, layer, "conv0", "norm0", "relu0", "pool0"))
    channels = 64
    for number, layers in enumerate((6, 12, 24, 16), start=1):
        dense = (Dense(channels + 32 * i, growth=32, norm=layer) for i in range(layers))
        named = ((f"denselayer{i}", one) for i, one in enumerate(dense, start=1))
        children[f"denseblock{number}"] = nn.Sequential(OrderedDict(named))
        channels += 32 * layers
        if number < 4:
            children[f"transition{number}"] = _chain(
                norm=layer(channels),
                relu=nn.ReLU(),
                conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
                pool=nn.AvgPool2d(2),
            )
            channels //= 2
    children["head"] = _chain(
        norm5=layer(channels),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(channels, task.outputs),
    )
    return _finished(children, "fan_in", weights)


class Residual(nn.Module):
    """A ResNet's block: two convolutions, or three with a narrow middle, beside an identity.

    Args:
        before: channels that come in.
        width: channels of the inner convolutions.
        stride: of the first 3 x 3 convolution.
        bottleneck: 1 x 1, 3 x 3, 1 x 1 with 4 times the width, in place of two 3 x 3.
        norm: channels -> a normalising layer.
    """

    def __init__(self, before: int, width: int, stride: int, bottleneck: bool, norm: Layer) -> None:
        super().__init__()
        after = 4 * width if bottleneck else width
        sizes = (1, 3, 1) if bottleneck else (3, 3)
        widths = (before, width, width, after) if bottleneck else (before, width, after)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        for i, size in enumerate(sizes):
            conv = nn.Conv2d(
                widths[i], widths[i + 1], size, strides[i], padding=size // 2, bias=False
            )
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", norm(widths[i + 1]))
        self.relu = nn.ReLU()
        self.depth = len(sizes)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, norm(after))

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, after, h / stride, w / stride]."""
        out = x
        for number in range(1, self.depth + 1):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out))
            out = self.relu(out) if number < self.depth else out
        identity = x if self.downsample is None else self.downsample(x)
        # A new sum, not `out += identity`: torch refuses to change what a hooked layer returned.
        summed: Tensor = self.relu(out + identity)
        return summed


class Dense(nn.Module):
    """A DenseNet's layer: what comes in, and `growth` new channels after it."""

    def __init__(self, before: int, growth: int, norm: Layer) -> None:
        super().__init__()
        self.norm1 = norm(before)
        self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2 = norm(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, before + growth, h, w]."""
        narrow = self.conv1(self.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu(self.norm2(narrow)))], dim=1)


def _resnet(
    task: Task, depths: tuple[int, ...], bottleneck: bool, norm: Norm, weights: str | None
) -> nn.Sequential:
    _check(task, "resnet")
    layer = _norm(norm)
    children = OrderedDict(stem=_stem(task, layer, "conv1", "bn1", "relu", "maxpool"))
    channels = 64
    for number, depth in enumerate(depths):
        blocks, width = [], 64 * 2**number
        for i in range(depth):
            stride = 2 if number and not i else 1
            blocks.append(Residual(channels, width, stride, bottleneck, layer))
            channels = 4 * width if bottleneck else width
        children[f"layer{number + 1}"] = nn.Sequential(*blocks)
    children["head"] = _chain(
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, task.outputs),
    )
    return _finished(children, "fan_out", weights)


def _stem(task: Task, norm: Layer, conv: str, bn: str, relu: str, pool: str) -> nn.Sequential:
    layers = {
        conv: nn.Conv2d(task.input[0], 64, 7, 2, padding=3, bias=False),
        bn: norm(64),
        relu: nn.ReLU(),
        pool: nn.MaxPool2d(3, 2, padding=1),
    }
    return _chain(**layers)


def _chain(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _norm(norm: Norm) -> Layer:
    if norm == "batch":
        return nn.BatchNorm2d
    return lambda channels: nn.GroupNorm(gcd(_GROUPS, channels), channels)


def _check(task: Task, name: str) -> None:
    if len(task.input) != 3 or min(task.input[1:]) < _SMALLEST:
        raise ConfigError(
            f"model {name}: needs images [c, h, w] of {_SMALLEST} pixels a side or more; "
            f"task.input is {list(task.input)}"
        )


def _finished(
    children: "OrderedDict[str, nn.Sequential]",
    fan: Literal["fan_in", "fan_out"],
    weights: str | None,
) -> nn.Sequential:
    net = nn.Sequential(OrderedDict[str, nn.Module](children))
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode=fan, nonlinearity="relu")
    if weights is not None:
        net.load_state_dict(pretrained(Path(weights), net.state_dict()))
    return net

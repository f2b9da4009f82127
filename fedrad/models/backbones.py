"""Well-known networks, made fit for federations, small sites and grey images.

GroupNorm in place of BatchNorm (Wu and He, ECCV 2018, https://arxiv.org/abs/1803.08494), because
BatchNorm mixes the patients of a batch, which DP-SGD cannot account for, and its running statistics
differ from site to site. Any number of channels. Nothing in place, which Opacus' hooks on gradients
do not bear. Every network is a chain of named children and can be cut between any two.

The networks are torchvision's own, built by its builders and taken apart into that chain.
torchvision is imported when one is built: it takes seconds, which a small net need not wait for.
"""

from collections import OrderedDict
from math import gcd
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.models.pretrained import pretrained

__all__ = ["densenet121", "resnet18", "resnet34", "resnet50"]

NormName = Literal["group", "batch"]

_GROUPS = 32
_SMALLEST = 29  # pixels; below, DenseNet's last pooling has nothing left to pool


def resnet18(task: Task, *, norm: NormName = "group", weights: str | None = None) -> nn.Sequential:
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
    return _resnet(task, "resnet18", norm, weights)


def resnet34(task: Task, *, norm: NormName = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-34, 21.3 million parameters; arguments as for `resnet18`.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> [len(layer) for layer in resnet34(task)[1:5]]
    [3, 4, 6, 3]
    """
    return _resnet(task, "resnet34", norm, weights)


def resnet50(task: Task, *, norm: NormName = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-50, 23.5 million parameters; arguments as for `resnet18`.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> resnet50(task).head.fc.in_features
    2048
    """
    return _resnet(task, "resnet50", norm, weights)


def densenet121(
    task: Task, *, norm: NormName = "group", weights: str | None = None
) -> nn.Sequential:
    """Return a DenseNet-121, 6.9 million parameters; arguments as for `resnet18`.

    Children are `stem`, `denseblock1`, `transition1` to `denseblock4`, `head`.

    Huang, Liu, van der Maaten, Weinberger, CVPR 2017, https://arxiv.org/abs/1608.06993.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> densenet121(task)(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 1])
    """
    _check(task, "densenet121")
    from torchvision.models import densenet121 as build

    net = build(weights=None, num_classes=task.outputs)
    parts = dict(net.features.named_children())
    stem = {name: parts.pop(name) for name in ("conv0", "norm0", "relu0", "pool0")}
    stem["conv0"] = _grey(stem["conv0"], task)
    head = _chain(
        norm5=parts.pop("norm5"),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=net.classifier,
    )
    return _finished(OrderedDict(stem=_chain(**stem), **parts, head=head), norm, weights)


class Residual(nn.Module):
    """A ResNet's block of torchvision, with a sum that is not made in place."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self.depth = 3 if "conv3" in dict(block.named_children()) else 2

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, channels, h / stride, w / stride]."""
        layers = dict(self.named_children())
        out = x
        for number in range(1, self.depth + 1):
            out = layers[f"bn{number}"](layers[f"conv{number}"](out))
            out = layers["relu"](out) if number < self.depth else out
        identity = layers["downsample"](x) if "downsample" in layers else x
        # A new sum, not `out += identity`: torch refuses to change what a hooked layer returned.
        summed: Tensor = layers["relu"](out + identity)
        return summed


def _resnet(task: Task, name: str, norm: NormName, weights: str | None) -> nn.Sequential:
    _check(task, name)
    from torchvision import models

    net = getattr(models, name)(weights=None, num_classes=task.outputs)
    stem = _chain(conv1=_grey(net.conv1, task), bn1=net.bn1, relu=net.relu, maxpool=net.maxpool)
    children = OrderedDict(stem=stem)
    for number in range(1, 5):
        blocks = getattr(net, f"layer{number}")
        children[f"layer{number}"] = nn.Sequential(*(Residual(block) for block in blocks))
    children["head"] = _chain(avgpool=net.avgpool, flatten=nn.Flatten(), fc=net.fc)
    return _finished(children, norm, weights)


def _grey(stem: nn.Module, task: Task) -> nn.Module:
    """Return a stem for the task's channels, drawn as torchvision draws its own."""
    assert isinstance(stem, nn.Conv2d)
    if task.input[0] == stem.in_channels:
        return stem
    grey = nn.Conv2d(task.input[0], stem.out_channels, 7, 2, padding=3, bias=False)
    nn.init.kaiming_normal_(grey.weight, mode="fan_out", nonlinearity="relu")
    return grey


def _chain(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _check(task: Task, name: str) -> None:
    if len(task.input) != 3 or min(task.input[1:]) < _SMALLEST:
        raise ConfigError(
            f"model {name}: needs images [c, h, w] of {_SMALLEST} pixels a side or more; "
            f"task.input is {list(task.input)}"
        )


def _finished(
    children: "OrderedDict[str, nn.Sequential]", norm: NormName, weights: str | None
) -> nn.Sequential:
    net = nn.Sequential(OrderedDict[str, nn.Module](children))
    for part in list(net.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU):
                child.inplace = False
            if isinstance(child, nn.BatchNorm2d) and norm == "group":
                channels = child.num_features
                setattr(part, name, nn.GroupNorm(gcd(_GROUPS, channels), channels))
    if weights is not None:
        net.load_state_dict(pretrained(Path(weights), net.state_dict()))
    return net

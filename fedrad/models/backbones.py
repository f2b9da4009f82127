"""Well-known networks from torchvision, made fit for federations, small sites and grey images.

GroupNorm in place of BatchNorm (Wu and He, ECCV 2018, https://arxiv.org/abs/1803.08494): BatchNorm
mixes the patients of a batch, which DP-SGD cannot account for, and its running statistics differ
from site to site. A stem for the task's channels. Nothing in place, which the hooks that Opacus sets
on gradients do not bear. Every network is a chain of named children and can be cut between any two.
"""

import re
from collections import OrderedDict
from math import gcd
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.errors import ConfigError, MissingError

__all__ = ["densenet121", "resnet18", "resnet34", "resnet50"]

Norm = Literal["group", "batch"]

_GROUPS = 32
_SMALLEST = 29  # pixels; below, DenseNet's last pooling has nothing left to pool


def resnet18(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-18, 11.2 million parameters.

    Args:
        task: images of 1 or 3 channels.
        norm: "group", or "batch" for FedBN and comparisons.
        weights: a state_dict on this machine (.safetensors, .pt, .pth), in torchvision's names,
            whose classifier is left out, or in this network's own names, which is taken whole. A
            file for 3 channels fits 1: its stem is summed over the channels.

    Returns:
        Children `stem`, `layer1` to `layer4`, `head`; [n, c, h, w] -> logits [n, outputs]. What no
        file gives is drawn from torch's global generator.

    Raises:
        ConfigError: the task has no images of that kind, or the file does not fit.
        MissingError: there is no such file.

    He, Zhang, Ren, Sun, CVPR 2016, https://arxiv.org/abs/1512.03385.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> [name for name, _ in resnet18(task).named_children()]
    ['stem', 'layer1', 'layer2', 'layer3', 'layer4', 'head']
    """
    return _resnet("resnet18", task, norm, weights)


def resnet34(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-34, 21.3 million parameters; arguments as for `resnet18`."""
    return _resnet("resnet34", task, norm, weights)


def resnet50(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a ResNet-50, 23.5 million parameters; arguments as for `resnet18`."""
    return _resnet("resnet50", task, norm, weights)


def densenet121(task: Task, *, norm: Norm = "group", weights: str | None = None) -> nn.Sequential:
    """Return a DenseNet-121, 7.0 million parameters; arguments as for `resnet18`.

    Children are `stem`, `denseblock1`, `transition1` to `denseblock4`, `head`.

    Huang, Liu, van der Maaten, Weinberger, CVPR 2017, https://arxiv.org/abs/1608.06993.

    >>> task = Task(name="binary", labels=("pneumonia",), input=(1, 64, 64))
    >>> densenet121(task)(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 1])
    """
    # Imported here: torchvision takes half a second, and a small network needs none of it.
    from torchvision.models import densenet121 as build

    _check(task, "densenet121")
    net = build(num_classes=task.outputs)
    parts = dict(net.features.named_children())
    children: OrderedDict[str, nn.Module] = OrderedDict(
        stem=_chain(parts, "conv0", "norm0", "relu0", "pool0")
    )
    for name in list(parts)[4:-1]:
        children[name] = parts[name]
    # torchvision's forward has an in-place ReLU, the pooling and the flattening as functions.
    children["head"] = _chain(
        {
            "norm5": parts["norm5"],
            "relu": nn.ReLU(),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": net.classifier,
        }
    )
    return _finished(nn.Sequential(children), task, norm, weights)


def _resnet(name: str, task: Task, norm: Norm, weights: str | None) -> nn.Sequential:
    from torchvision import models

    _check(task, name)
    net = getattr(models, name)(num_classes=task.outputs)
    parts = dict(net.named_children()) | {"flatten": nn.Flatten()}
    children: OrderedDict[str, nn.Module] = OrderedDict(
        stem=_chain(parts, "conv1", "bn1", "relu", "maxpool")
    )
    for number in range(1, 5):
        blocks = parts[f"layer{number}"].children()
        children[f"layer{number}"] = nn.Sequential(*(Residual(block) for block in blocks))
    children["head"] = _chain(parts, "avgpool", "flatten", "fc")
    return _finished(nn.Sequential(children), task, norm, weights)


class Residual(nn.Module):
    """torchvision's BasicBlock or Bottleneck, same names and numbers, with a sum that is new.

    Theirs is `out += identity`: with Opacus' hooks torch refuses to change a layer's output.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self.depth = sum(name.startswith("conv") for name, _ in block.named_children())

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, c, h, w] of the block."""
        parts = self._modules
        out = x
        for number in range(1, self.depth + 1):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out))
            out = self.relu(out) if number < self.depth else out
        identity = self.downsample(x) if "downsample" in parts else x
        return self.relu(out + identity)


def _check(task: Task, name: str) -> None:
    fits = len(task.input) == 3 and task.input[0] in (1, 3) and min(task.input[1:]) >= _SMALLEST
    if not fits:
        raise ConfigError(
            f"model {name}: needs images of 1 or 3 channels and {_SMALLEST} or more pixels a side; "
            f"task.input is {list(task.input)}"
        )


def _chain(parts: dict[str, nn.Module], *names: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, parts[name]) for name in names or parts))


def _finished(net: nn.Sequential, task: Task, norm: Norm, weights: str | None) -> nn.Sequential:
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and norm == "group":
                setattr(parent, name, _group_norm(child.num_features))
            elif isinstance(child, nn.ReLU):
                setattr(parent, name, nn.ReLU())
    stem = net.get_submodule("stem")
    name, first = next(iter(stem.named_children()))
    assert isinstance(first, nn.Conv2d)
    if task.input[0] == 1:
        setattr(stem, name, _one_channel(first))
    if weights is not None:
        net.load_state_dict(_fitting(net.state_dict(), _read(Path(weights)), weights))
    return net


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(_GROUPS, channels), channels)


def _one_channel(conv: nn.Conv2d) -> nn.Conv2d:
    size, stride, padding = conv.kernel_size, conv.stride, conv.padding
    grey = nn.Conv2d(1, conv.out_channels, size, stride, padding, bias=False)  # type: ignore[arg-type]
    # As torchvision draws it: the variance is set by the outputs.
    nn.init.kaiming_normal_(grey.weight, mode="fan_out", nonlinearity="relu")
    return grey


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingError(f"model.weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: a pickle could run code.
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"model.weights: {path.name} is no state_dict ({type(error).__name__})"
        ) from None
    if not (isinstance(found, dict) and all(isinstance(v, Tensor) for v in found.values())):
        raise ConfigError(f"model.weights: {path.name} holds no state_dict, names and arrays only")
    return found


def _fitting(own: dict[str, Tensor], found: dict[str, Tensor], place: str) -> dict[str, Tensor]:
    if found.keys() != own.keys():
        found = _renamed(found, own)
    missing = sorted(own.keys() - found.keys())
    odd = sorted(k for k in found if k in own and found[k].shape != own[k].shape)
    extra = sorted(found.keys() - own.keys())
    for what, names in (
        ("lacks", missing),
        ("has another shape of", odd),
        ("has an unknown", extra),
    ):
        if names:
            raise ConfigError(
                f"model.weights: {Path(place).name} {what} {names[0]} ({len(names)} such arrays); "
                "it must be of the same network"
            )
    return found


def _renamed(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's arrays under our names, and our own classifier."""
    last_name = {name.split(".", 1)[1]: name for name in own if name.startswith(("stem.", "head."))}
    renamed = {k: v for k, v in own.items() if re.match(r"head\.(fc|classifier)\.", k)}
    for name, value in found.items():
        # Files of 2017 call "norm1" "norm.1"; BatchNorm's statistics have no place in GroupNorm.
        name = re.sub(r"\b(norm|relu|conv)\.(\d)\b", r"\1\2", name.removeprefix("features."))
        name = last_name.get(name, name)
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        if (statistic and name not in own) or re.match(r"(head\.)?(fc|classifier)\.", name):
            continue
        grey = name in own and own[name].ndim == 4 and own[name].shape[1] == 1
        renamed[name] = value.sum(1, keepdim=True) if grey else value
    return renamed

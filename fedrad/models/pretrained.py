"""Weights from a file on this machine, under the names of our networks."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fedrad.core.state import State
from fedrad.errors import ConfigError, MissingError
from fedrad.registry import shown_names

__all__ = ["pretrained"]

_WRAPPED = ("module.", "_orig_mod.", "_module.", "model.", "backbone.")
"""Names that wrappers put before all others: DataParallel, torch.compile, Opacus, Lightning."""
_INSIDE = ("state_dict", "model_state_dict", "model")
"""Where a training's checkpoint keeps the weights."""
_KEPT = re.compile(r"head\.(fc|classifier)\.|.*\.num_batches_tracked$")


def pretrained(path: Path, own: State) -> State:
    """Return a file's weights as a network of ours takes them.

    Args:
        path: a state_dict, .safetensors or what `torch.save` wrote; no code in it is run.
        own: the network's state. A file with the same names is taken whole. From one in
            torchvision's names the classifier is left out (our own stays), a 3-channel stem is
            summed for one channel, and BatchNorm's statistics are dropped where there is GroupNorm.
            A wrapper's name before all others ("module." of DataParallel) is taken off, and of a
            training's checkpoint the weights are taken.

    Raises:
        MissingError: there is no such file.
        ConfigError: it is no state_dict, or one of another network.
    """
    found = _bare(_read(path))
    if found.keys() != own.keys():
        found = _renamed(found, own)
    problems = {
        "lacks": own.keys() - found.keys(),
        "has an unknown": found.keys() - own.keys(),
        "has another shape of": {
            k for k in found.keys() & own.keys() if found[k].shape != own[k].shape
        },
    }
    for what, names in problems.items():
        if names:
            raise ConfigError(
                f"model.weights: {path.name} {what} {min(names)} ({len(names)} such arrays); "
                "it must come from the same network",
                stays=True,
            )
    return found


def _read(path: Path) -> State:
    if not path.is_file():
        raise MissingError(f"model.weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: a pickle could run code.
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        kind = type(error).__name__
        raise ConfigError(
            f"model.weights: {path.name} is no state_dict ({kind})", stays=True
        ) from None
    found = _unpacked(found)
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        held = ""
        if isinstance(found, dict):
            held = f" ({shown_names(map(str, found), most=5)}); it has none of {', '.join(_INSIDE)}"
        raise ConfigError(
            f"model.weights: {path.name} holds more than names and arrays{held}", stays=True
        )
    return dict(found)


def _unpacked(found: Any) -> Any:
    """Return the weights of a training's checkpoint, which holds an optimiser's state and more."""
    inside = [k for k in _INSIDE if isinstance(found, dict) and isinstance(found.get(k), Mapping)]
    return dict(found[inside[0]]) if len(inside) == 1 else found


def _bare(found: State) -> State:
    """Return the weights without a name that a wrapper put before all of them."""
    for prefix in _WRAPPED:
        if found and all(name.startswith(prefix) for name in found):
            return {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _renamed(found: State, own: State) -> State:
    ends = {k.split(".", 1)[1]: k for k in own if k.startswith(("stem.", "head."))}
    renamed = {k: value for k, value in own.items() if _KEPT.match(k)}
    for name, value in found.items():
        # Files of 2017 call norm1 "norm.1".
        short = re.sub(r"\b(norm|conv)\.(\d)\b", r"\1\2", name.removeprefix("features."))
        key = ends.get(short, short)
        statistic = key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        if _KEPT.match(key) or (statistic and key not in own):
            continue
        grey = key in own and value.ndim == 4 and value.shape[1] == 3 and own[key].shape[1] == 1
        renamed[key] = value.sum(1, keepdim=True) if grey else value
    return renamed

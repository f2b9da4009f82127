"""Whether a message has the form of a question at all, whatever it asks.

What is read here is read again by those who answer, so it has to mean one thing to all: a number
that is a text, or an action that is cut off, would be judged as one and done as another.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, prod
from typing import Any

import torch

from fedrad.algorithms.evaluation import THRESHOLDS
from fedrad.assemble import metrics_of, model_of
from fedrad.config import Experiment, SiteFile
from fedrad.core.state import Bundle
from fedrad.deployment.reply_spec import specs_of
from fedrad.deployment.site.parsed_message import LONGEST
from fedrad.deployment.site.policy import policy_error
from fedrad.errors import ConfigError, SiteFailedError
from fedrad.models import MODELS
from fedrad.registry import build, split

__all__ = ["check_form", "check_sent", "check_size", "check_thresholds"]

_MOST_ACTIONS = 2
_MOST_VALUES = 1 << 26
"""Numbers of one input: a volume of 400 pixels each way."""
_MOST_PARAMETERS = 10**9
_MOST_CELLS = 1 << 22
"""Largest number among a metric's or a transformation's options that stands for a size."""
_LONGEST_DEADLINE = 7 * 86400.0
_INVITATION: Mapping[str, type | tuple[type, ...]] = {
    "address": str, "token": str, "run": str, "ca": str,
    "round": int, "largest": int, "deadline": (int, float),
}  # fmt: skip


def check_form(site: SiteFile, config: Mapping[str, Any], experiment: Experiment) -> None:
    """Check names, numbers and sizes of a message, before anything is made of them.

    Raises:
        ConfigError: a setting is of another type, or its value does not fit the experiment.
        PolicyError: what the experiment describes is too large to be tried.
        SiteFailedError: an invitation to a stream is none.
    """
    for name in ("arm", "action"):
        value = config.get(name, "")
        if not isinstance(value, str) or len(value) > LONGEST:
            raise ConfigError(f"the message's {name} is no text of {LONGEST} letters or fewer")
    actions = str(config.get("action", "")).split("+")
    if len(actions) > _MOST_ACTIONS or len(set(actions)) < len(actions):
        raise ConfigError(f"the message asks {len(actions)} things, or one of them twice")
    if "arm" in config:
        _check_number("seed", config.get("seed"), experiment.seeds)
        # What an arm ends with is tested in the round after its last.
        _check_number("server-round", config.get("server-round"), range(experiment.rounds + 2))
    for name, known in (("arms", experiment.arm_names), ("seeds", experiment.seeds)):
        _check_some(name, config.get(name, known), known)
    _check_invitation(config)
    if prod(experiment.task.input) > _MOST_VALUES:
        raise policy_error(
            site.name, "task.input", f"{_MOST_VALUES} values", prod(experiment.task.input)
        )
    for spec in experiment.metrics:
        largest = _largest(spec)
        if largest > _MOST_CELLS:
            raise policy_error(site.name, "metrics", f"sizes up to {_MOST_CELLS}", f"{largest:g}")


def check_size(site: SiteFile, arm: Experiment) -> None:
    """Check the size of an arm's model by its shapes alone; nothing is allocated.

    Raises:
        PolicyError: it has too many parameters.
        ConfigError: the model's name or options do not fit.
    """
    name, options = split(arm.model, where="model")
    shapes = {"name": name, **{key: value for key, value in options.items() if key != "weights"}}
    try:
        with torch.device("meta"):
            model: torch.nn.Module = build(MODELS, shapes, arm.task, where="model")
    except (RuntimeError, OverflowError, TypeError):
        raise policy_error(site.name, "model", f"{_MOST_PARAMETERS} parameters", "more") from None
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > _MOST_PARAMETERS:
        raise policy_error(site.name, "model", f"{_MOST_PARAMETERS} parameters", size)


def check_sent(site: SiteFile, arm: Experiment, sent: Bundle) -> None:
    """Refuse a model that is not the experiment's: the answer would be as large as it.

    Raises:
        PolicyError: an array of it has another name or shape.
    """
    own = specs_of({"model": model_of(arm).state_dict()})["model"]
    for key, shape in specs_of(sent).get("model", {}).items():
        if own.get(key) != shape:
            raise policy_error(site.name, "message", "the experiment's model", "another one")


def check_thresholds(site: SiteFile, arm: Experiment, actions: Sequence[str], sent: Bundle) -> None:
    """Refuse thresholds that are none of the experiment's.

    Args:
        site: whose policy it is.
        arm: the experiment as the arm sees it.
        actions: asked for in one message.
        sent: the arrays that came with it.

    Raises:
        PolicyError: they come with another question than a test, are of other metrics or another
            shape, or hold what is neither a number nor the marker of none.
    """
    edges = sent.get(THRESHOLDS)
    if edges is None:
        return
    if not {"test", "split-test"} & set(actions):
        raise policy_error(site.name, "thresholds", "with a test", f"with {'+'.join(actions)}")
    names = {metric.name for metric in metrics_of(arm) if metric.specificity is not None}
    if edges.keys() != names:
        raise policy_error(site.name, "thresholds", ", ".join(sorted(names)) or "none", "others")
    wanted = arm.task.outputs
    for tensor in edges.values():
        if tensor.shape != (wanted,) or not tensor.is_floating_point():
            limit = f"{wanted} number{'s' * (wanted != 1)} for each metric"
            raise policy_error(site.name, "thresholds", limit, f"shape {list(tensor.shape)[:8]}")
        if not bool(tensor.isfinite().all()):
            raise policy_error(site.name, "thresholds", "finite numbers", "one that is not")


def _check_number(name: str, value: Any, known: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value not in known:
        raise ConfigError(f"the message's {name} is not one of the experiment's")


def _check_some(name: str, values: Any, known: Sequence[Any]) -> None:
    listed = isinstance(values, list | tuple) and len(values) == len(set(values)) > 0
    if not listed or not all(type(one) is type(known[0]) and one in known for one in values):
        raise ConfigError(f"the message's {name} are not some of the experiment's, each once")


def _check_invitation(config: Mapping[str, Any]) -> None:
    if not any(key.startswith("stream-") for key in config):
        return
    for key, kind in _INVITATION.items():
        value = config.get(f"stream-{key}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise SiteFailedError(f"the invitation to a stream has no {key}")
        if isinstance(value, str) and len(value) > (1 << 16):
            raise SiteFailedError(f"the invitation to a stream has too long a {key}")
    deadline, largest = config["stream-deadline"], config["stream-largest"]
    if not (isfinite(deadline) and 0 < deadline <= _LONGEST_DEADLINE):
        raise SiteFailedError("the invitation to a stream has a deadline that is none")
    if not 0 < largest < 1 << 31:
        raise SiteFailedError("the invitation to a stream has a size of packets that is none")


def _largest(value: Any) -> float:
    """Return the largest number anywhere in an option's value, or 0."""
    if isinstance(value, Mapping):
        return max(map(_largest, value.values()), default=0)
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return float(value) if isinstance(value, int | float) else 0

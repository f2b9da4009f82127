"""A site's numbers, held against what it told at the roll call and what the experiment allows.

A site weighs as much in a mean as it says it has images. What it said before anything was trained,
when nobody could tell which number would help it, is what it must say in every round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrad.assemble import steps_per_round
from fedrad.config import Experiment
from fedrad.core.state import Bundle
from fedrad.data.base import SPLITS, SiteData
from fedrad.deployment.coordinator.result_checks import implausible_result

__all__ = ["MOST_IMAGES", "SiteClaims", "implausible", "not_counts"]

MOST_IMAGES = 5_000_000
"""Of one split of a hospital: more are a mistake or a lie, and would fill this machine's memory."""

_ROUNDED = 10
"""What a private site tells of its training images is rounded, and each arm rounds for itself."""
_TRAINS = frozenset({"fit", "finetune"})
_SPLIT = {"test": "test", "tune": "val", "validate": "val"}
_COUNTS = frozenset({"num-examples", "patients", "sites", "steps"})
_ONE_SITE = "sites"
_RESULT = "result"
"""The state of a reply that tells of a model on a split's images."""


@dataclass(frozen=True)
class SiteClaims:
    """What a site told about itself before round 1.

    Args:
        images, patients: of each split.
        within: how far another count of training images may be from it.
    """

    images: Mapping[str, int]
    patients: Mapping[str, int]
    within: int = 0

    @staticmethod
    def of(data: SiteData, *, private: bool) -> "SiteClaims":
        """Return what a stand-in for a site's data says of it."""
        return SiteClaims(
            {split: data.images(split) for split in SPLITS},
            {split: data.patients(split) for split in SPLITS},
            _ROUNDED if private else 0,
        )


def not_counts(numbers: Mapping[str, float]) -> str | None:
    """Return which number of a reply should count something and cannot, or None.

    >>> not_counts({"num-examples": -5.0})
    'num-examples is negative'
    >>> not_counts({"steps": 1.5})
    'steps is no whole number'
    """
    for name in sorted(numbers):
        if name not in _COUNTS and not name.startswith("patients-"):
            continue
        if numbers[name] < 0:
            return f"{name} is negative"
        if numbers[name] != int(numbers[name]):
            return f"{name} is no whole number"
    return None


def implausible(
    arm: Experiment,
    actions: Sequence[str],
    numbers: Mapping[str, float],
    arrays: Bundle,
    told: SiteClaims,
) -> str | None:
    """Return which number of a reply is not what the site told before, or None.

    Args:
        arm: the experiment as the arm sees it.
        actions: what was asked, in one message.
        numbers: of the reply; whole numbers where they count something.
        arrays: of the reply.
        told: at the roll call.
    """
    if numbers.get(_ONE_SITE, 1.0) != 1.0:
        return f"it counts as {numbers[_ONE_SITE]:g} sites"
    for action in reversed(actions):
        plain = action.removeprefix("split-")
        if action in _TRAINS and (wrong := _training(arm, numbers, told)):
            return wrong
        if plain not in _SPLIT:
            continue
        split = _SPLIT[plain]
        if wrong := _evaluated(split, action, actions, numbers, told):
            return wrong
        found = arrays.get(_RESULT, {})
        size = told.images[split], told.patients[split], arm.task.columns
        if wrong := implausible_result(found, *size):
            return wrong
    return _counted(arrays, told)


def _training(arm: Experiment, numbers: Mapping[str, float], told: SiteClaims) -> str | None:
    images = told.images["train"]
    given = int(numbers.get("num-examples", images))
    if abs(given - images) > told.within:
        return f"num-examples is {given}; at the roll call it told {images}"
    due = steps_per_round(arm.local, given)
    if int(numbers.get("steps", due)) != due:
        return f"steps is {int(numbers['steps'])}; {given} images make {due}"
    return None


def _evaluated(
    split: str, action: str, actions: Sequence[str], numbers: Mapping[str, float], told: SiteClaims
) -> str | None:
    most = {"patients": told.patients[split]}
    # Of several answers in one message the first one's number is kept.
    if action == actions[0]:
        most["num-examples"] = told.images[split]
    for name, limit in most.items():
        if numbers.get(name, 0.0) > limit:
            return f"{name} is {int(numbers[name])}; at the roll call it told {limit} of {split}"
    return None


def _counted(arrays: Bundle, told: SiteClaims) -> str | None:
    most = told.images["train"] + told.within
    for counts in arrays.get("counts", {}).values():
        if bool((counts < 0).any()) or (counts.numel() and int(counts.sum(-1).max()) > most):
            return f"labels are counted over other images than the {told.images['train']} it told"
    return None

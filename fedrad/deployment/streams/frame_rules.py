"""What a site may send in a stream, frame by frame, and in which order.

The coordinator computes with what comes: a frame that lacks an array or is of another shape would
end the round for all. It is looked at before it reaches the network, and ends its own stream alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedrad.algorithms.base import Frame
from fedrad.core.printable import printable
from fedrad.deployment.frame_spec import FrameSpec
from fedrad.deployment.reply_spec import ArraySpec, specs_of

__all__ = ["FrameRules"]

_BATCH = frozenset({"activations", "gradients", "labels"})
"""Arrays whose first axis is a batch's images; all others are of one shape."""
_LATER = frozenset({"shrink"})
"""What a frame holds as soon as there is something to settle."""
_LARGEST = 1e15
_READY, _FORWARD, _BACKWARD = "ready", "forward", "backward"


@dataclass
class FrameRules:
    """The rules of one stream; what has come before is kept.

    Args:
        streamed: kinds of frames, and the shapes in each, of a full batch.
        classes: of a label; None where one is 0, 1 or not read.
        steps: that the site takes in the round; None where nobody knows.
    """

    streamed: FrameSpec
    classes: int | None = None
    steps: int | None = None
    _taken: int = 0
    _rows: int | None = None

    def fault(self, frame: Frame) -> str | None:
        """Return which rule a frame breaks, or None; of one that breaks none, take note.

        Names that nobody asked for are not repeated.
        """
        wanted = self.streamed.frames.get(frame.kind)
        if wanted is None:
            return f"a frame of kind '{printable(frame.kind, 20)}' came"
        wrong = (
            self._numbers(frame)
            or _shapes(frame, wanted)
            or self._order(frame)
            or self._values(frame)
        )
        return f"its {frame.kind} frame does not fit: {wrong}" if wrong else None

    def _numbers(self, frame: Frame) -> str | None:
        due = {"steps"} if frame.kind == _READY else set()
        if set(frame.numbers) != due:
            return "a number that nobody asked for, or none where one was due"
        steps = frame.numbers.get("steps", 0.0)
        if not 0 <= steps < 1e9 or steps != int(steps):
            return "steps is no count"
        if due and self.steps is not None and steps != self.steps:
            return f"steps is {int(steps)}; what it told makes {self.steps}"
        return None

    def _order(self, frame: Frame) -> str | None:
        """Return what came in another order than a step's; U-shaped ones have two frames."""
        rows = next((len(a) for name, a in frame.arrays.items() if name in _BATCH), None)
        if frame.kind == _BACKWARD:
            due, self._rows = self._rows, None
            return None if rows == due else "it does not answer the frame before it"
        if self._rows is not None:
            return "the one before it was not followed by gradients"
        if frame.kind == _FORWARD:
            self._taken += 1
            if self.steps is not None and self._taken > self.steps:
                return f"more than the {self.steps} steps that what it told makes"
            self._rows = rows if _BACKWARD in self.streamed.frames else None
        return None

    def _values(self, frame: Frame) -> str | None:
        for name, array in frame.arrays.items():
            if name == "labels":
                if not _are_labels(array, self.classes):
                    return "labels are not the task's"
            elif not _bounded(array):
                return f"{name if name in _BATCH else 'an array'} holds no finite number of use"
        return None


def _shapes(frame: Frame, wanted: Mapping[str, ArraySpec]) -> str | None:
    found = specs_of({"frame": frame.arrays})["frame"]
    if found.keys() - wanted.keys():
        return "an array that nobody asked for"
    if missing := wanted.keys() - found.keys() - _LATER:
        return f"{min(missing)} is missing"
    for name, shape in found.items():
        most = wanted[name]
        fits = shape == most
        if name in _BATCH and shape.shape and most.shape:
            same = shape.kind == most.kind and shape.shape[1:] == most.shape[1:]
            fits = same and 1 <= shape.shape[0] <= most.shape[0]
        if not fits:
            return f"{name} is {shape}, of {most}"
    if len({found[name].shape[0] for name in found if name in _BATCH}) > 1:
        return "its arrays are of different batches"
    return None


def _are_labels(labels: Tensor, classes: int | None) -> bool:
    if classes is None:
        return bool(((labels == 0) | (labels == 1) | labels.isnan()).all())
    return bool(((labels >= 0) & (labels < classes) & (labels == labels.round())).all())


def _bounded(array: Tensor) -> bool:
    if not array.numel() or array.dtype == torch.bool:
        return True
    # As one float each: NaN is in every comparison false, so it is not bounded either.
    return abs(float(array.max())) <= _LARGEST and abs(float(array.min())) <= _LARGEST

"""What a site's answer must look like: the server runs the site's half once on made-up images.

No algorithm declares the arrays that its sites send, so none can declare them wrongly. A reply with
a missing or extra array, another shape or kind, or a number that is not finite is named and left
out; it never reaches a sum.
"""

import logging
from collections.abc import Mapping
from math import isfinite

import numpy as np
import torch
from flwr.app import Message

from fedrad.algorithms.base import PERSONAL, Reply, Request
from fedrad.assemble import handlers_of, initial_state, local_task, model_of
from fedrad.config import Experiment, Task
from fedrad.core.state import Bundle
from fedrad.data.base import SPLITS, SiteData
from fedrad.errors import FedradError
from fedrad.federation.client import COUNTS
from fedrad.federation.records import bundle_of, config_of, numbers_of

__all__ = ["Expected", "difference"]

log = logging.getLogger(__name__)

_IMAGES = 8
Shape = tuple[str, tuple[int, ...]]
Form = tuple[dict[str, Shape], frozenset[str]]
"""Arrays by name, and the names of the numbers."""


class Expected:
    """Knows what an experiment's sites answer.

    Args:
        experiment: its arms, models and statistics.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._forms: dict[tuple[str, ...], Form | None] = {}
        self._memory: dict[str, Bundle] = {}

    def check(self, question: Message, reply: Message) -> str | None:
        """Return what is wrong with a site's reply, or None."""
        config = config_of(question.content)
        action = str(config["action"])
        arrays, numbers = bundle_of(reply.content), numbers_of(reply.content)
        wrong = _not_finite(arrays, numbers)
        if wrong is None and action != "describe":
            form = self._form(str(config["arm"]), action, bundle_of(question.content))
            wrong = form and difference(form, _form_of(Reply(arrays, numbers)))
        return f"{action}: {wrong}" if wrong else None

    def _form(self, arm: str, action: str, sent: Bundle) -> Form | None:
        key = (arm, action, *sorted(sent))
        if key not in self._forms:
            self._forms[key] = self._tried(arm, action, sent)
        return self._forms[key]

    def _tried(self, name: str, action: str, sent: Bundle) -> Form | None:
        arm = self._experiment.arm(name)
        arrays = {key: state for key, state in sent.items() if key != COUNTS}
        own = {PERSONAL: initial_state(arm, 0)}
        # A site that has not trained remembers nothing; some actions need what it then would.
        for memory in ({}, self._memory.get(name, {}), own):
            task = local_task(
                arm, _made_up(arm.task), model_of(arm), seed=0, device=torch.device("cpu"), steps=1
            )
            try:
                reply, after = handlers_of(arm)[action](
                    Request(site="", round=1, arrays=arrays, memory=memory, local=task)
                )
            except (FedradError, LookupError):
                continue
            self._memory[name] = after or self._memory.get(name, {})
            return _form_of(reply)
        log.warning("%s, %s: replies are checked for finite numbers only", name, action)
        return None


def _made_up(task: Task) -> SiteData:
    """Return a site with a few random images of every label in every split."""
    rng = np.random.default_rng(0)
    shape = (_IMAGES, *task.input)
    image = len(task.input) == 3
    x = rng.integers(0, 256, shape, np.uint8) if image else rng.normal(size=shape)
    y = np.arange(_IMAGES)[:, None] % (task.outputs if task.name == "multiclass" else 2)
    return SiteData(
        site="made-up",
        x=x if image else x.astype(np.float32),
        y=np.broadcast_to(y, (_IMAGES, task.columns)).astype(np.float32),
        patient=np.arange(_IMAGES, dtype=np.uint64),
        rows={split: np.arange(_IMAGES) for split in SPLITS},
    )


def _form_of(reply: Reply) -> Form:
    shapes = {
        f"{name}/{key}": (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, state in reply.arrays.items()
        for key, value in state.items()
    }
    return shapes, frozenset(reply.numbers)


def difference(expected: Form, found: Form) -> str | None:
    """Return the first difference between two forms in words, or None.

    >>> form = {"model/w": ("float32", (2,))}, frozenset({"num-examples"})
    >>> difference(form, ({}, form[1]))
    'array model/w is missing'
    >>> difference(form, ({"model/w": ("float32", (20,))}, form[1]))
    'array model/w is float32 (20,), expected float32 (2,)'
    """
    arrays, numbers = expected
    for kind, wanted, there in (("array", set(arrays), set(found[0])), ("number", numbers, found[1])):
        if wanted - there:
            return f"{kind} {min(wanted - there)} is missing"
        if there - wanted:
            return f"{len(there - wanted)} {kind}s that nobody asked for"
    for name, (dtype, shape) in arrays.items():
        if found[0][name] != (dtype, shape):
            other, size = found[0][name]
            return f"array {name} is {other} {size}, expected {dtype} {shape}"
    return None


def _not_finite(arrays: Bundle, numbers: Mapping[str, float]) -> str | None:
    for name, state in arrays.items():
        for key, value in state.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                # A name that nobody asked for may say anything: only its place is told.
                return f"an array of '{name[:20]}' ({len(key)} letters) holds a number that is not finite"
    bad = [key for key, value in numbers.items() if not isfinite(value)]
    if bad:
        return f"{len(bad)} numbers are not finite"
    if numbers.get("num-examples", 0) < 0:
        return "num-examples is negative"
    return None

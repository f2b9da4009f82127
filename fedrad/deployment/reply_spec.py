"""What a site's answer looks like, known before anything is trained.

The site's own half of the algorithm is run on an empty hospital: no row to train on, one blank one
to evaluate. Names, shapes and kinds of what comes out are those of the real answer, so what a
preview shows is what the guard lets out.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedrad.algorithms.base import PERSONAL, Frame, Reply, Request
from fedrad.assemble import (
    algorithm_of,
    cut_of,
    handlers_of,
    initial_state,
    local_task,
    model_of,
    streams_of,
)
from fedrad.config import Experiment
from fedrad.core.state import Bundle, State
from fedrad.core.wire import encode
from fedrad.data.base import SPLITS, SiteData
from fedrad.errors import ConfigError
from fedrad.metrics.site_result import hospital_disclosure
from fedrad.models.cut_sizes import cut_sizes
from fedrad.training.dp.private_arm import dp_config_of

__all__ = [
    "ArraySpec",
    "ArraySpecs",
    "ReplySpec",
    "empty_site",
    "infer_reply_spec",
    "specs_of",
    "trial_reply",
]


@dataclass(frozen=True)
class ArraySpec:
    """An array's shape and kind, as torch names it ("float32")."""

    shape: tuple[int, ...]
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {list(self.shape)}"

    @property
    def bytes(self) -> int:
        """Return the bytes of the array.

        >>> ArraySpec((2, 3), "float32").bytes
        24
        """
        return int(np.prod(self.shape)) * np.dtype(self.kind).itemsize


ArraySpecs = Mapping[str, Mapping[str, ArraySpec]]
_UNTOLD = frozenset({"loss-sum"})
"""Numbers of training that a private site does not tell (`algorithms.base.fitted_numbers`)."""
StreamCoroutine = Generator[Frame, Frame, tuple[Reply, Bundle]]


@dataclass(frozen=True)
class ReplySpec:
    """The look of an answer: its arrays' shapes, by state and name, and its numbers' names."""

    arrays: ArraySpecs
    numbers: frozenset[str]

    @property
    def bytes(self) -> int:
        """Return the bytes of the answer's arrays and numbers."""
        return sum(shape.bytes for shape in self._flat().values()) + 8 * len(self.numbers)

    def difference(self, arrays: ArraySpecs, numbers: Iterable[str]) -> str | None:
        """Return in words how an answer differs from this look, or None when it does not.

        >>> arrays = {"model": {"w": ArraySpec((2,), "float32")}}
        >>> look = ReplySpec(arrays, frozenset({"num-examples"}))
        >>> look.difference({}, ["num-examples"])
        'array model/w is missing'
        >>> look.difference({"model": {"w": ArraySpec((20,), "float32")}}, ["num-examples"])
        'array model/w is float32 [20], not float32 [2]'
        """
        wanted, found = self._flat(), ReplySpec(arrays, frozenset(numbers))._flat()
        for name in sorted(wanted.keys() | found.keys()):
            if name not in found:
                return f"array {name} is missing"
            if name not in wanted:
                # What nobody asked for may bear any name: it is not repeated.
                return "an array that nobody asked for"
            if found[name] != wanted[name]:
                return f"array {name} is {found[name]}, not {wanted[name]}"
        missing, more = self.numbers - set(numbers), set(numbers) - self.numbers
        if missing:
            return f"number {min(missing)} is missing"
        return "a number that nobody asked for" if more else None

    def _flat(self) -> dict[str, ArraySpec]:
        return {
            f"{name}/{key}": shape
            for name, state in self.arrays.items()
            for key, shape in state.items()
        }


def specs_of(bundle: Bundle) -> dict[str, dict[str, ArraySpec]]:
    """Return the shapes of a bundle's arrays.

    >>> specs_of({"model": {"w": torch.zeros(2)}})
    {'model': {'w': ArraySpec(shape=(2,), kind='float32')}}
    """
    return {
        name: {
            key: ArraySpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for key, tensor in state.items()
        }
        for name, state in bundle.items()
    }


def infer_reply_spec(
    arm: Experiment, actions: Sequence[str], sent: Bundle, memory: Bundle, *, round: int
) -> ReplySpec:
    """Return the look of a site's answer to one message.

    Args:
        arm: the experiment as the arm sees it.
        actions: what is asked, one or several in one message.
        sent: the arrays that came with it.
        memory: what the site kept before; {} will do.
        round: from 1.

    Raises:
        ConfigError: the arm knows no such action.
    """
    replies = [trial_reply(arm, action, sent, memory, round=round)[0] for action in actions]
    arrays: dict[str, dict[str, ArraySpec]] = {}
    for reply in replies:
        arrays |= specs_of(reply.arrays)
    return ReplySpec(arrays, frozenset(name for reply in replies for name in reply.numbers))


def trial_reply(
    arm: Experiment, action: str, sent: Bundle, memory: Bundle, *, round: int
) -> tuple[Reply, Bundle]:
    """Return what an empty hospital answers, and what it keeps.

    Args:
        arm: as for `infer_reply_spec`.
        action: one of the arm's.
        sent: as for `infer_reply_spec`.
        memory: what the hospital kept before.
        round: from 1.

    Raises:
        ConfigError: the arm knows no such action.
    """
    known, streams = handlers_of(arm), streams_of(arm)
    if action not in known and action not in streams:
        names = ", ".join(sorted({*known, *streams}))
        raise ConfigError(f"action '{action}' is not one of {names}")
    # Noise changes no shape, and nobody is there whose privacy it would keep.
    plain = arm.model_copy(update={"privacy": None})
    task = local_task(plain, empty_site(arm), model_of(arm), seed=0, device=torch.device("cpu"))
    # Of a hospital's answer the arrays are always of the same length.
    task = replace(task, disclosure=hospital_disclosure())
    if algorithm_of(arm).personal and PERSONAL not in memory:
        # A site that is asked for its own model has one by then.
        memory = {**memory, PERSONAL: initial_state(arm, 0)}
    request = Request(site="preview", round=round, arrays=sent, memory=memory, local=task)
    if action in streams:
        return _played(arm, streams[action](request))
    reply, after = known[action](request)
    if dp_config_of(arm) is not None:
        numbers = {name: value for name, value in reply.numbers.items() if name not in _UNTOLD}
        reply = Reply(reply.arrays, numbers)
    return reply, after


def _played(arm: Experiment, half: StreamCoroutine) -> tuple[Reply, Bundle]:
    """Return how a site's half of a stream ends, against a server that answers with zeros."""
    answer: Frame | None = None
    while True:
        try:
            frame = next(half) if answer is None else half.send(answer)
        except StopIteration as end:
            result: tuple[Reply, Bundle] = end.value
            return result
        answer = Frame("end")
        if frame.kind == "forward":
            answer = Frame("features", _zeros(arm, len(frame.arrays["activations"])))


def _zeros(arm: Experiment, rows: int) -> State:
    plan, model = cut_of(arm), model_of(arm)
    assert plan is not None, "only a cut network has frames"
    sizes = cut_sizes(model, arm.task.input, [plan.cut], plan.tail_of(model), flops=False)[0]
    return encode("features", torch.zeros(rows, *sizes.features), plan.activations)


def empty_site(arm: Experiment) -> SiteData:
    """Return a hospital with nothing to train on, and one blank row to evaluate."""
    images = len(arm.task.input) == 3
    rows = {name: np.arange(0 if name == "train" else 1) for name in SPLITS}
    return SiteData(
        site="preview",
        x=np.zeros((1, *arm.task.input), np.uint8 if images else np.float32),
        y=np.zeros((1, arm.task.columns), np.float32),
        patient=np.zeros(1, np.uint64),
        rows=rows,
    )

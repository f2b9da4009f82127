"""What an experiment would exchange with a site, without connecting and without training.

The server's half of each arm runs its first and last round against an empty hospital; every
question and answer is noted with its arrays' names and shapes.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fedrad.algorithms.base import Algorithm, Reply, Streams
from fedrad.algorithms.evaluation import THRESHOLDS, as_state
from fedrad.algorithms.split.server import evaluate_with
from fedrad.assemble import algorithm_of, initial_state, metrics_of, server_task
from fedrad.config import Experiment
from fedrad.core.state import Bundle, State, num_bytes
from fedrad.deployment.frame_spec import infer_frame_spec
from fedrad.deployment.reply_spec import (
    ReplySpec,
    empty_site,
    infer_reply_spec,
    specs_of,
    trial_reply,
)
from fedrad.deployment.site.policy import UNMEASURED
from fedrad.deployment.streams.empty_streams import EmptyStreams
from fedrad.rounds.records import bundle_of, numbers_of
from fedrad.rounds.site_summary import site_summary
from fedrad.training.server import ServerTask

__all__ = ["Exchange", "exchanges_of", "introduction", "per_round"]

_SITE = "preview"


@dataclass(frozen=True)
class Exchange:
    """One question to a site, and the look of its answer.

    Args:
        arm: of the experiment, or "(all)".
        when: "at the start", "every round", "first rounds", "last rounds" or "at the end";
            "every batch" of the frames of a stream, which are of a full batch.
        action: what is asked.
        bytes_in: of the arrays that come with the question.
        answer: what leaves.
        told: the same in words, of a stream.
        update: what leaves is a model that was trained here.
    """

    arm: str
    when: str
    action: str
    bytes_in: int
    answer: ReplySpec
    told: str = ""
    update: bool = False


def introduction(experiment: Experiment) -> Exchange:
    """Return what a site is asked before round 1: its counts of images, patients and labels."""
    told = site_summary(empty_site(experiment), experiment.task, torch.device("cpu"), digest="")
    look = ReplySpec(specs_of(bundle_of(told)), frozenset(numbers_of(told)))
    return Exchange("(all)", "at the start", "describe", 0, look)


def exchanges_of(experiment: Experiment, name: str) -> list[Exchange]:
    """Return what one arm exchanges with a site, in order.

    Raises:
        ConfigError: a name or an option of the arm does not fit.
    """
    arm = experiment.arm(name)
    algorithm = algorithm_of(arm)
    sites = _EmptySites(arm, name, arm.rounds)
    state = algorithm.init(initial_state(arm, 0))
    if arm.local.class_weights == "global":
        sites.when = "at the start"
        sites.mean("count", {})
    common: Bundle = {"model": state["model"]} if algorithm.shared else {}
    for number, when in ((1, "first rounds"), (arm.rounds, "last rounds")):
        sites.number, sites.when = number, when
        sites.rides = common if arm.validate_every else None
        state = algorithm.round(state, number, sites)
        common = {"model": state["model"]} if algorithm.shared else {}
        if sites.rides is not None:
            sites.rides = None
            _evaluate(algorithm, state, sites, "validate")
    sites.when = "at the end"
    if arm.validate_every:
        _evaluate(algorithm, state, sites, "validate")
    edges = _thresholds(arm)
    # Whoever has a whole network of its own finds its threshold alone.
    if edges and (algorithm.shared or algorithm.cut):
        _evaluate(algorithm, state, sites, "tune")
    _evaluate(algorithm, state, sites, "test", edges)
    if algorithm.personal and not algorithm.cut:
        if algorithm.shared:
            sites.mean("test", {})
        own = sites.mean("share", {}).arrays
        sites.mean("test", own)
    return _merged(sites.noted)


def _evaluate(
    algorithm: Algorithm,
    state: Bundle,
    sites: "_EmptySites",
    action: str,
    thresholds: State | None = None,
) -> None:
    if algorithm.cut:
        edges = {_SITE: thresholds} if thresholds else None
        list(evaluate_with(algorithm.cut, state["model"], sites, action, edges))
        return
    send: Bundle = {"model": state["model"]} if algorithm.shared else {}
    sites.mean(action, {**send, THRESHOLDS: thresholds} if send and thresholds else send)


def _thresholds(arm: Experiment) -> State:
    """Return thresholds as the coordinator sends them; {} where no metric has one."""
    none = np.full(arm.task.outputs, np.nan)
    return as_state({m.name: none for m in metrics_of(arm) if m.specificity is not None})


def per_round(exchanges: list[Exchange]) -> tuple[int, int]:
    """Return the bytes that come in and that leave in a round of an arm; the larger of its kinds.

    Validation is counted in every round, though an experiment may ask for it less often.
    """

    def both(when: str) -> tuple[int, int]:
        chosen = [one for one in exchanges if one.when in ("every round", when)]
        return sum(one.bytes_in for one in chosen), sum(one.answer.bytes for one in chosen)

    return max(both("first rounds"), both("last rounds"), key=sum)


def _merged(noted: list[Exchange]) -> list[Exchange]:
    """Return each exchange once; what is asked in the first and in the last round is in every."""
    found: dict[tuple[str, str, int], Exchange] = {}
    for one in noted:
        key = (one.action, one.when.partition("at the ")[2], one.bytes_in)
        before = found.get(key)
        if before is not None and {before.when, one.when} == {"first rounds", "last rounds"}:
            one = replace(one, when="every round")
        if before is None or one.when == "every round":
            found[key] = one
    return list(found.values())


def _same(one: Bundle, other: Bundle) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)


@dataclass
class _EmptySites:
    """A federation of one empty hospital, as an algorithm sees it (`algorithms.base.Sites`)."""

    arm: Experiment
    name: str
    rounds: int
    when: str = ""
    number: int = 1
    memory: Bundle = field(default_factory=dict)
    noted: list[Exchange] = field(default_factory=list)
    rides: Bundle | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (_SITE,)

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        asked = action
        if self.rides is not None and _same(send, self.rides):
            # Over a network the validation of a model goes with the first question that sends it.
            asked, self.rides = f"{action}+validate", None
        look = infer_reply_spec(self.arm, asked.split("+"), send, self.memory, round=self.number)
        size, memory = num_bytes(send), self.memory
        reply, self.memory = trial_reply(self.arm, action, send, memory, round=self.number)
        update = action == "share" or (action not in UNMEASURED and bool(reply.arrays))
        self.noted.append(Exchange(self.name, self.when, asked, size, look, update=update))
        return reply

    def gather(self, action: str, send: Bundle) -> Iterator[tuple[str, Reply]]:
        yield _SITE, self.mean(action, send)

    @property
    def server(self) -> ServerTask:
        return server_task(self.arm, seed=0, device=torch.device("cpu"))

    def note(self, key: str, value: object) -> None:
        """Do nothing: nothing is recorded."""

    @contextmanager
    def stream(self, action: str, send: Mapping[str, Bundle]) -> Iterator[Streams]:
        look = infer_reply_spec(self.arm, [action], send[_SITE], self.memory, round=self.number)
        size, update = num_bytes(send[_SITE]), action not in UNMEASURED and bool(look.arrays)
        self.noted.append(Exchange(self.name, self.when, action, size, look, update=update))
        streamed = infer_frame_spec(self.arm, action, lambda split: 0)
        assert streamed is not None, "only a cut network opens streams"
        frames = ReplySpec(streamed.frames, frozenset())
        self.noted.append(
            Exchange(self.name, "every batch", action, streamed.batch_down, frames, streamed.told)
        )
        reply, self.memory = trial_reply(
            self.arm, action, send[_SITE], self.memory, round=self.number
        )
        yield EmptyStreams(_SITE, reply)

    def average(
        self, replies: Iterable[tuple[str, Reply]], *, weight: str = "num-examples"
    ) -> Reply:
        return next(iter(replies))[1]

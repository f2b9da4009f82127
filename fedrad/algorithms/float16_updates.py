"""Quantised updates: each site sends what it changed, in 16 bits an element instead of 32.

Konečný, McMahan, Yu, Richtárik, Suresh, Bacon: "Federated Learning: Strategies for Improving
Communication Efficiency", 2016, https://arxiv.org/abs/1610.05492 (sketched updates: the update is
sent, not the model, since it bears a coarse step); here rounded to the nearest IEEE float16.

Each element of a site's change arrives off by at most max(|change| / 2^11, 2^-25), so an element of
the mean by no more than the weighted mean of these; sums and means are made in float32. What the
server sends stays as it is, so half of what goes up is saved, a quarter of both ways.
"""

from dataclasses import replace

from fedrad.algorithms.base import CHANGE, Algorithm, Handler, Reply, Request, Sites
from fedrad.algorithms.mean_only import MeanOnly
from fedrad.core.state import Bundle, State
from fedrad.core.wire import encode
from fedrad.errors import ConfigError

__all__ = ["float16_updates"]

_READS = "float16_updates: goes with algorithms that read the mean alone, not single sites' models"


def float16_updates(federated: Algorithm) -> Algorithm:
    """Return an algorithm whose sites send the model's change in float16.

    Of a reply's "model", what is floating point goes as `CHANGE`, after - before; counters, which
    are whole numbers, go as they are. Other arrays of a reply are not touched, and no reply that
    sends no model (fine-tuning at home, evaluation).

    Args:
        federated: sends a model, and reads the sites' mean.

    Raises:
        ConfigError: sites send no model, but parts of a cut one, or changes that were clipped.

    >>> from fedrad.algorithms.fedavg import fedavg
    >>> sorted(float16_updates(fedavg()).handlers)
    ['fit']
    """
    if federated.streams:
        raise ConfigError(
            "float16_updates: the network is cut, and its frames have a precision of their own; "
            "give the algorithm activations: float16 instead"
        )
    if federated.changes:
        raise ConfigError(
            "float16_updates: does not go with central_dp: rounded after it was clipped, a change "
            "can be longer than the noise is made for"
        )

    def play(state: Bundle, number: int, sites: Sites) -> Bundle:
        return federated.round(state, number, _Added(sites, _READS))

    handlers = {action: _rounding(handler) for action, handler in federated.handlers.items()}
    return replace(federated, round=play, handlers=handlers, changes=True)


class _Added(MeanOnly):
    """The sites of a round, whose mean change is added to the model that was sent."""

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        reply = self.sites.mean(action, send, weight=weight)
        if CHANGE not in reply.arrays:
            return reply
        before, kept = send["model"], reply.arrays.get("model", {})
        change = reply.arrays[CHANGE]
        model = {
            name: kept[name] if name in kept else start + change[name].to(start)
            for name, start in before.items()
        }
        others = {name: state for name, state in reply.arrays.items() if name != CHANGE}
        return Reply({**others, "model": model}, reply.numbers)


def _rounding(handler: Handler) -> Handler:
    def rounded(request: Request) -> tuple[Reply, Bundle]:
        reply, memory = handler(request)
        if "model" not in reply.arrays:
            return reply, memory
        before, after = request.arrays["model"], reply.arrays["model"]
        change: State = {}
        counters: State = {}
        for name, value in after.items():
            if value.is_floating_point():
                change |= encode(name, value - before[name].to(value), "float16")
            else:
                counters[name] = value
        others = {name: state for name, state in reply.arrays.items() if name != "model"}
        arrays = {**others, CHANGE: change} | ({"model": counters} if counters else {})
        return Reply(arrays, reply.numbers), memory

    return rounded

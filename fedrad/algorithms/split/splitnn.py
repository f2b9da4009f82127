"""SplitNN: one network whose front, and tail, travels from site to site.

Gupta and Raskar, "Distributed learning of deep neural network over multiple agents", Journal of
Network and Computer Applications 2018, https://arxiv.org/abs/1810.06060, Algorithm 2 (relay through
the server). After every batch: Gawali et al., "Comparison of privacy-preserving distributed deep
learning methods in healthcare", MIUA 2021, https://arxiv.org/abs/2012.12591.
"""

from functools import partial
from typing import Literal

from fedrad.algorithms.base import Algorithm, Frame, Sites
from fedrad.algorithms.split.cut_plan import CutPlan, LabelPlace, Noise, NoPeek
from fedrad.algorithms.split.server import ServerHalf, drawn_order, site_part
from fedrad.algorithms.split.site import relay, train
from fedrad.core.state import Bundle, State
from fedrad.core.wire import Precision
from fedrad.models.cut import merged_parts

__all__ = ["splitnn"]


def splitnn(
    *,
    cut: str,
    tail: str | None = None,
    shape: LabelPlace = "u",
    alternate: Literal["client", "minibatch"] = "client",
    activations: Precision = "float32",
    gradients: Precision = "float32",
    nopeek: NoPeek = 0.0,
    noise: Noise = 0.0,
) -> Algorithm:
    """Return split learning in a relay: each round every site takes its steps, one after another.

    The server's part is one, and so is its optimiser in a round. The sites' parts travel on
    through the server: after a site's whole visit ("client"; the site's optimiser begins anew) or
    after every batch ("minibatch"; each site's optimiser stays at the site over the round). The
    order of sites is drawn anew for every round and recorded.

    Args:
        cut: the site's front goes up to and with this child of the model.
        tail: the site's tail begins with this child; None is the last layer alone.
        shape: "u", or "labels_at_server" without a tail.
        alternate: when the sites' parts travel on.
        activations: precision of activations on the wire.
        gradients: precision of gradients on the wire.
        nopeek: weight of the distance correlation between images and activations in the loss.
        noise: standard deviation of Gaussian noise on the activations; no privacy guarantee.

    >>> sorted(splitnn(cut="layer1").streams)
    ['fit']
    """
    plan = CutPlan(cut, tail, shape, activations, gradients, nopeek, noise)
    by_visit = alternate == "client"
    return Algorithm(
        init=_init,
        round=partial(_by_visit if by_visit else _by_batch, plan),
        handlers={},
        streams={"fit": train(plan) if by_visit else relay(plan)},
        relays=True,
        cut=plan,
    )


def _init(model: State) -> Bundle:
    return {"model": model}


def _by_visit(plan: CutPlan, state: Bundle, number: int, sites: Sites) -> Bundle:
    whole = state["model"]
    half = ServerHalf(plan, sites.server, whole)
    own = site_part(plan, sites.server, whole)
    for site in drawn_order(sites, number):
        with sites.stream("fit", {site: {"model": own}}) as streams:
            for _, frame in streams.arriving():
                streams[site].send(half.answer(frame))
            own = streams[site].result().arrays["model"]
    return {"model": merged_parts(whole, own, half.state())}


def _by_batch(plan: CutPlan, state: Bundle, number: int, sites: Sites) -> Bundle:
    whole = state["model"]
    half = ServerHalf(plan, sites.server, whole)
    own = site_part(plan, sites.server, whole)
    order = drawn_order(sites, number)
    with sites.stream("fit", {site: {} for site in order}) as streams:
        left = {site: int(streams[site].receive().numbers["steps"]) for site in order}
        while any(left.values()):
            for site in (site for site in order if left[site]):
                streams[site].send(Frame("take over", own))
                frame = half.serve(streams[site], until="hand on")
                half.settle(frame.arrays)
                own = {name: frame.arrays[name] for name in own}
                left[site] -= 1
        for site in order:
            streams[site].send(Frame("end"))
            streams[site].result()
    return {"model": merged_parts(whole, own, half.state())}

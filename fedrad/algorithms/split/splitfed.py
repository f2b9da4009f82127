"""SplitFed: split learning whose parts are averaged as in federated learning.

Thapa, Arachchige, Camtepe, Sun: "SplitFed: When Federated Learning Meets Split Learning", AAAI
2022, https://arxiv.org/abs/2004.12088, Algorithms 1 and 2 (version 1), section 3 (version 2).
Version 3: Gawali et al., "Comparison of privacy-preserving distributed deep learning methods in
healthcare", MIUA 2021, https://arxiv.org/abs/2012.12591. Sites are weighted by their training
images. Version 1 is `fedavg` of the whole network, bit for bit; the gap between the two in the
paper's table is of its code, which makes a new optimiser for every batch on the server's side only.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from fedrad.algorithms.base import Algorithm, Reply, Sites
from fedrad.algorithms.split.cut_plan import CutPlan, LabelPlace, Noise, NoPeek
from fedrad.algorithms.split.server import ServerHalf, drawn_order, site_part
from fedrad.algorithms.split.site import train
from fedrad.core.state import Bundle, State
from fedrad.core.wire import Precision
from fedrad.models.cut import merged_parts

__all__ = ["splitfed"]

SplitRound = Callable[[CutPlan, Bundle, int, Sites], Bundle]


def splitfed(
    *,
    cut: str,
    tail: str | None = None,
    version: Literal[1, 2, 3] = 1,
    shape: LabelPlace = "u",
    activations: Precision = "float32",
    gradients: Precision = "float32",
    nopeek: NoPeek = 0.0,
    noise: Noise = 0.0,
) -> Algorithm:
    """Return SplitFed; version 1 is `fedavg` of the whole network bit for bit.

    Optimisers are made anew each round: a site's for its visit; the server's one a site in versions
    1 and 3, and one for the whole round in version 2.

    Args:
        cut: the site's front goes up to and with this child of the model.
        tail: the site's tail begins with this child; None is the last layer alone.
        version: 1: a server part a site, in parallel; all parts are averaged. 2: one server part
            that meets the sites one after another, in an order drawn anew for every round and
            recorded; the sites' parts are averaged. 3: as 1, but each site keeps its own parts, so
            there are as many models as sites and each is tested at home.
        shape: "u", or "labels_at_server" without a tail.
        activations: precision of activations on the wire.
        gradients: precision of gradients on the wire.
        nopeek: weight of the distance correlation between images and activations in the loss.
        noise: standard deviation of Gaussian noise on the activations; no privacy guarantee.

    >>> splitfed(cut="layer1").shared, splitfed(cut="layer1", version=3).shared
    (True, False)
    """
    private = version == 3
    plan = CutPlan(cut, tail, shape, activations, gradients, nopeek, noise, shared=not private)
    rounds: dict[int, SplitRound] = {1: _parallel, 2: _sequential, 3: _private}
    return Algorithm(
        init=_init,
        round=partial(rounds[version], plan),
        handlers={},
        streams={"fit": train(plan, private=private)},
        shared=not private,
        personal=private,
        cut=plan,
    )


def _init(model: State) -> Bundle:
    return {"model": model}


def _parallel(plan: CutPlan, state: Bundle, number: int, sites: Sites) -> Bundle:
    whole = state["model"]
    own = site_part(plan, sites.server, whole)
    replies = [
        (site, Reply({"model": merged_parts(whole, reply.arrays["model"], body)}, reply.numbers))
        for site, reply, body in _visits(plan, whole, {"model": own}, sites)
    ]
    return {"model": sites.average(replies).arrays["model"]}


def _private(plan: CutPlan, state: Bundle, number: int, sites: Sites) -> Bundle:
    whole = state["model"]
    replies = [
        (site, Reply({"body": body}, reply.numbers))
        for site, reply, body in _visits(plan, whole, {}, sites)
    ]
    # The sites' parts in the server's state stay those of the start, which every site knows.
    return {"model": merged_parts(whole, whole, sites.average(replies).arrays["body"])}


def _visits(
    plan: CutPlan, whole: State, send: Bundle, sites: Sites
) -> list[tuple[str, Reply, State]]:
    """Return each site's reply and what became of its server part, all from the same start."""
    halves = {site: ServerHalf(plan, sites.server, whole) for site in sites.names}
    with sites.stream("fit", dict.fromkeys(sites.names, send)) as streams:
        for site, frame in streams.arriving():
            streams[site].send(halves[site].answer(frame))
        return [(site, streams[site].result(), halves[site].state()) for site in streams.names]


def _sequential(plan: CutPlan, state: Bundle, number: int, sites: Sites) -> Bundle:
    whole = state["model"]
    half = ServerHalf(plan, sites.server, whole)
    send: Bundle = {"model": site_part(plan, sites.server, whole)}
    replies: list[tuple[str, Reply]] = []
    for site in drawn_order(sites, number):
        with sites.stream("fit", {site: send}) as streams:
            for _, frame in streams.arriving():
                streams[site].send(half.answer(frame))
            replies.append((site, streams[site].result()))
    return {"model": merged_parts(whole, sites.average(replies).arrays["model"], half.state())}

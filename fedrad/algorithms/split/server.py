"""The server's half of split learning: the body, and with labels at the server the loss."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor

from fedrad.algorithms.base import Frame, Reply, Sites, Stream
from fedrad.algorithms.evaluation import THRESHOLDS
from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.core import seeds
from fedrad.core.state import Bundle, State, clone
from fedrad.core.wire import decode, encode
from fedrad.errors import SiteFailedError
from fedrad.training.fit import load_into
from fedrad.training.server import ServerTask

__all__ = ["ServerHalf", "drawn_order", "evaluate_with", "site_part"]


class ServerHalf:
    """The part of the network at the server, on its way through a round.

    Args:
        plan: of the cut.
        server: what to compute with.
        state: of the whole network; the body's weights are taken from it.
    """

    def __init__(self, plan: CutPlan, server: ServerTask, state: State) -> None:
        self.plan, self.server = plan, server
        # A copy: in version 1 the server has as many parts as sites.
        self.body = deepcopy(plan.parts(server.model).body).to(server.device)
        self._own: State = self.body.state_dict()
        load_into(self._own, {name: state[name] for name in self._own})
        self._params = list(self.body.parameters())
        self._step = server.stepper(self._params)
        self._waiting: Sequence[Tensor] = ()
        self._z = self._h = torch.empty(0)

    def state(self) -> State:
        """Return a copy of the body's weights, under the whole network's names."""
        return clone(self._own)

    def answer(self, frame: Frame) -> Frame:
        """Return the answer to a site's frame of a training step; changes the body."""
        with self.server.meter.spent("training"):
            return self._answer(frame)

    def _answer(self, frame: Frame) -> Frame:
        if frame.kind == "settle":
            self.settle(frame.arrays)
            return Frame("settled")
        if frame.kind == "forward":
            self.settle(frame.arrays)
            return self._forward(frame)
        if frame.kind == "backward":
            dh = decode("gradients", frame.arrays).to(self.server.device)
            return self._backward(self._h, dh, Frame("gradients"))
        raise SiteFailedError(f"a site sent '{frame.kind}' where a step's frame was due")

    def settle(self, arrays: State) -> None:
        """Take the step that waited for the site's word on how much to shrink the gradients."""
        if self._waiting and "shrink" in arrays:
            scale = arrays["shrink"].to(self.server.device)
            self._step(torch._foreach_mul(list(self._waiting), scale))
            self._waiting = ()

    def predict(self, frame: Frame) -> Frame:
        """Return what the body makes of a batch when nothing is learnt."""
        self.body.eval()
        with self.server.meter.spent("evaluation"), torch.inference_mode():
            h = self.body(decode("activations", frame.arrays).to(self.server.device))
            return Frame("features", encode("features", h.contiguous(), self.plan.activations))

    def _forward(self, frame: Frame) -> Frame:
        self.body.train()
        z = decode("activations", frame.arrays).to(self.server.device)
        self._z = z.detach().requires_grad_()
        self._h = self.body(self._z)
        if self.plan.shape == "u":
            h = self._h.detach().contiguous()
            return Frame("features", encode("features", h, self.plan.activations))
        objective = self.server.objective(frame.arrays.get("weights"))
        loss = objective.loss(self._h, frame.arrays["labels"].to(self.server.device))
        return self._backward(loss, None, Frame("gradients", {"loss": loss.detach()}))

    def _backward(self, end: Tensor, gradient: Tensor | None, answer: Frame) -> Frame:
        """Take the step, or keep it waiting for the clipping, and send the cut's gradient down."""
        *grads, dz = torch.autograd.grad(end, [*self._params, self._z], gradient)
        self._z = self._h = torch.empty(0)
        arrays = {
            **answer.arrays,
            **encode("gradients", dz.contiguous(), self.plan.gradients),
        }
        if self.server.clip is not None:
            norms = torch._foreach_norm(grads) if grads else ()
            arrays["norms"] = torch.stack(list(norms)) if norms else torch.empty(0)
            self._waiting = grads
        elif grads:
            self._step(grads)
        return Frame(answer.kind, arrays)

    def serve(self, stream: Stream, *, until: str) -> Frame:
        """Answer a site's frames up to the first of a kind, and return that one unanswered."""
        frame = stream.receive()
        while frame.kind != until:
            stream.send(self.answer(frame))
            frame = stream.receive()
        return frame


def site_part(plan: CutPlan, server: ServerTask, state: State) -> State:
    """Return the weights that a site holds, out of the whole network's."""
    return {name: state[name] for name in plan.ends(server.model).state_dict()}


def drawn_order(sites: Sites, number: int) -> list[str]:
    """Return the sites in the order in which a round visits them, and put it into the record.

    Each site draws its place, so one more or less does not change the order of the others.
    """
    run = sites.server.seed
    order = sorted(sites.names, key=lambda site: seeds.seed(run, site, number, "order"))
    sites.note("order", order)
    return order


def evaluate_with(
    plan: CutPlan,
    model: State,
    sites: Sites,
    action: str,
    thresholds: Mapping[str, State] | None = None,
) -> Iterator[tuple[str, Reply]]:
    """Yield what each site tells of a split model: no image leaves, and no site has it whole.

    With shared parts the sites get the common ones; private ones are at the sites already.

    Args:
        plan: of the cut.
        model: the whole network's state; with private parts only the server's part of it is used.
        sites: that are asked.
        action: "test", "tune" or "validate", as for a whole model.
        thresholds: site -> from where its images are called positive.
    """
    half = ServerHalf(plan, sites.server, model)
    send: Bundle = {}
    if plan.shared:
        send = {"model": site_part(plan, sites.server, model)}
    edges = thresholds or {}
    sent = {
        name: {**send, **({THRESHOLDS: edges[name]} if edges.get(name) else {})}
        for name in sites.names
    }
    with sites.stream(f"split-{action}", sent) as streams:
        for site, frame in streams.arriving():
            streams[site].send(half.predict(frame))
        replies = [(site, streams[site].result()) for site in streams.names]
    yield from replies

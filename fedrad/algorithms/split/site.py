"""A site's half of split learning: the front, and in the U-shape the tail, the loss and the labels.

The generators send a frame with each `yield` and receive the server's answer; the graph of autograd
lives between them, so nothing is computed twice.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor, nn

from fedrad.algorithms.base import (
    PERSONAL,
    Frame,
    Reply,
    Request,
    StreamHandler,
    fitted_numbers,
)
from fedrad.algorithms.evaluation import THRESHOLDS, of_state, result_reply
from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.core.seeds import seed
from fedrad.core.state import Bundle, State, all_finite, clone
from fedrad.core.wire import decode, encode
from fedrad.errors import TrainingDivergedError
from fedrad.training.batches import model_input, reader
from fedrad.training.evaluate import BATCH
from fedrad.training.fit import clipping, load_into
from fedrad.training.local import Fitted
from fedrad.training.nopeek import sample_distance_correlation

__all__ = ["SiteHalf", "relay", "split_evaluation", "train"]

Talk = Generator[Frame, Frame, None]


class SiteHalf:
    """The parts of the network at a site, on their way through a round."""

    def __init__(self, plan: CutPlan, request: Request) -> None:
        self.plan, self.local = plan, request.local
        model = self.local.model.to(self.local.device)
        split = plan.parts(model)
        self.front, self.tail = split.front, split.tail
        self._own: State = {**self.front.state_dict(), **self.tail.state_dict()}
        self._front_params, self._tail_params = (
            list(self.front.parameters()),
            list(self.tail.parameters()),
        )
        self._step = self.local.stepper([*self._front_params, *self._tail_params])
        self._noise = torch.Generator().manual_seed(
            seed(self.local.seed, request.site, request.round, "cut noise")
        )
        self._settling: State = {}
        self._losses: Tensor | float = 0.0
        self.steps = 0

    def load(self, state: State) -> None:
        """Take the weights of the parts from a state of them or of the whole network."""
        load_into(self._own, {name: state[name] for name in self._own})

    def state(self) -> State:
        """Return a copy of the parts' weights, under the whole network's names."""
        return clone(self._own)

    def settling(self) -> State:
        """Return what the server's last step still waits for, and forget it."""
        arrays, self._settling = self._settling, {}
        return arrays

    def fitted(self, state: State) -> Fitted:
        """Return what came of the training; raises TrainingDivergedError if it is no number."""
        loss = float(self._losses) / self.steps if self.steps else 0.0
        if not (isfinite(loss) and all_finite({"model": state})):
            raise TrainingDivergedError(
                f"{self.local.site}: the loss or a weight is no finite number after {self.steps} "
                "steps; lower the learning rate or set clip"
            )
        return Fitted(state, self.local.examples, self.steps, loss)

    def batches(self, round: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a round's (x, y) of so many steps, none without training images."""
        batches = self.local.batches(round, steps) if steps else ()
        return self.local.meter.each("data", batches)

    def step(self, x: Tensor, y: Tensor) -> Talk:
        """Take one step on a batch, together with the server."""
        return self.local.meter.during("training", self._step_on(x, y))

    def _step_on(self, x: Tensor, y: Tensor) -> Talk:
        for part in (self.front, self.tail):
            part.train()
        z = self.front(x)
        frame = self.forward(z)
        if self.plan.shape == "u":
            tail_grads, norms, dz = yield from self._through_the_tail(frame, y)
        else:
            tail_grads, norms, dz = yield from self._with_labels(frame, y)
        self._update(self._front_grads(x, z, dz), tail_grads, norms)
        self.steps += 1

    def forward(self, z: Tensor) -> Frame:
        """Return the frame that carries a front's activations."""
        noisy = z.detach()
        if self.plan.noise:
            drawn = torch.randn(z.shape, generator=self._noise)
            noisy = noisy + self.plan.noise * drawn.to(z.device)
        return Frame("forward", encode("activations", noisy.contiguous(), self.plan.activations))

    def _through_the_tail(
        self, frame: Frame, y: Tensor
    ) -> Generator[Frame, Frame, tuple[Sequence[Tensor], Tensor | None, Tensor]]:
        answer = yield self._settled(frame)
        h = decode("features", answer.arrays).to(y.device).detach().requires_grad_()
        loss = self.local.objective.loss(self.tail(h), y)
        *grads, dh = torch.autograd.grad(loss, [*self._tail_params, h])
        self._lose(loss.detach())
        answer = yield Frame("backward", encode("gradients", dh.contiguous(), self.plan.gradients))
        return (
            grads,
            answer.arrays.get("norms"),
            decode("gradients", answer.arrays).to(y.device),
        )

    def _with_labels(
        self, frame: Frame, y: Tensor
    ) -> Generator[Frame, Frame, tuple[Sequence[Tensor], Tensor | None, Tensor]]:
        labels: State = {"labels": y}
        if self.local.weights is not None:
            labels["weights"] = self.local.weights
        answer = yield self._settled(replace(frame, arrays={**frame.arrays, **labels}))
        self._lose(answer.arrays["loss"].to(y.device))
        return (
            [],
            answer.arrays.get("norms"),
            decode("gradients", answer.arrays).to(y.device),
        )

    def _settled(self, frame: Frame) -> Frame:
        return replace(frame, arrays={**frame.arrays, **self.settling()})

    def _lose(self, loss: Tensor) -> None:
        # A sum on the device: reading it here would make a GPU wait at every step.
        self._losses = loss.double() if not self.steps else self._losses + loss

    def _front_grads(self, x: Tensor, z: Tensor, dz: Tensor) -> Sequence[Tensor]:
        if not self._front_params:
            return []
        if not self.plan.nopeek:
            return torch.autograd.grad(z, self._front_params, dz)
        peek = self.plan.nopeek * sample_distance_correlation(x, z)
        return torch.autograd.grad([z, peek], self._front_params, [dz, torch.ones_like(peek)])

    def _update(
        self, front: Sequence[Tensor], tail: Sequence[Tensor], norms: Tensor | None
    ) -> None:
        grads = [*front, *tail]
        if self.local.clip is not None:
            assert norms is not None
            own = torch._foreach_norm(grads) if grads else ()
            order = [*own[: len(front)], *norms.to(self.local.device), *own[len(front) :]]
            scale = clipping(order, self.local.clip)
            grads = list(torch._foreach_mul(grads, scale)) if grads else []
            self._settling = {"shrink": scale}
        if grads:
            self._step(grads)


def train(plan: CutPlan, *, private: bool = False) -> StreamHandler:
    """Return the site's half of a visit: all its steps of the round, from the weights it is sent.

    Args:
        plan: of the cut.
        private: the site starts from its own parts, keeps them, and hands none out.
    """

    def handler(request: Request) -> Generator[Frame, Frame, tuple[Reply, Bundle]]:
        half = SiteHalf(plan, request)
        half.load(_start(request, private))
        steps = request.local.steps_per_round()
        for x, y in half.batches(request.round, steps):
            yield from half.step(x, y)
        if steps:
            yield Frame("settle", half.settling())
        fitted = half.fitted(half.state())
        numbers = fitted_numbers(fitted)
        if private:
            return Reply(numbers=numbers), {**request.memory, PERSONAL: fitted.state}
        return Reply({"model": fitted.state}, numbers), request.memory

    return handler


def relay(plan: CutPlan) -> StreamHandler:
    """Return the site's half of a relay in which the sites' parts travel after every batch.

    The site says how many steps it will take, and for each gets the parts and hands them on. Its
    optimiser's state stays with it over the round.
    """

    def handler(request: Request) -> Generator[Frame, Frame, tuple[Reply, Bundle]]:
        half, local = SiteHalf(plan, request), request.local
        steps = local.steps_per_round()
        answer = yield Frame("ready", numbers={"steps": float(steps)})
        for x, y in half.batches(request.round, steps):
            half.load(answer.arrays)
            yield from half.step(x, y)
            answer = yield Frame("hand on", {**half.state(), **half.settling()})
        return Reply(numbers=fitted_numbers(half.fitted({}))), request.memory

    return handler


def split_evaluation(plan: CutPlan, draws: int) -> Mapping[str, StreamHandler]:
    """Return the site's halves of evaluations in which the server computes the body.

    Args:
        plan: of the cut.
        draws: of the test patients' influence on each metric, beside what was observed.
    """
    return {
        "split-test": _evaluate(plan, "test", "test", draws),
        "split-tune": _evaluate(plan, "tune", "val", 0),
        "split-validate": _evaluate(plan, "validate", "val", 0),
    }


def _evaluate(plan: CutPlan, action: str, split: str, draws: int) -> StreamHandler:
    def handler(request: Request) -> Generator[Frame, Frame, tuple[Reply, Bundle]]:
        return request.local.meter.during("evaluation", scored(request))

    def scored(request: Request) -> Generator[Frame, Frame, tuple[Reply, Bundle]]:
        local = request.local
        half = SiteHalf(plan, request)
        half.load(_start(request, private="model" not in request.arrays))
        scores: list[Tensor] = []
        places = torch.arange(local.data.images(split))
        for x, _ in reader(local.data, split, local.device)(places, BATCH):
            answer = yield half.forward(_computed(half.front, model_input(x)))
            logits = _computed(half.tail, decode("features", answer.arrays).to(x.device))
            scores.append(local.objective.probabilities(logits.double()))
        found = torch.cat(scores).cpu().numpy()
        sent = request.arrays.get(THRESHOLDS)
        # Curves take the threshold of the very images; a test's comes with the question.
        edges = of_state(sent or {})
        if action == "validate":
            edges = local.thresholds(found, split=split)
        reply = result_reply(local, found, split, action=action, draws=draws, thresholds=edges)
        return reply, request.memory

    return handler


def _computed(part: nn.Module, x: Tensor) -> Tensor:
    part.eval()
    with torch.inference_mode():
        y: Tensor = part(x)
    return y


def _start(request: Request, private: bool) -> State:
    if not private:
        return request.arrays["model"]
    own = request.memory.get(PERSONAL)
    return own if own is not None else request.local.initial()

"""What one site does with its own images: train for a round, evaluate, count labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import blake2b
from math import isfinite
from typing import Any

import torch
from torch import Generator, Tensor, nn

from fedrad.config import Task
from fedrad.core.seeds import seed
from fedrad.core.state import State, all_finite, clone
from fedrad.core.timing import PhaseTimer
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError, PolicyError, TrainingDivergedError
from fedrad.metrics.base import Array, Metric
from fedrad.metrics.site_result import FULL_DISCLOSURE, Disclosure, SiteResult
from fedrad.privacy.dp_sgd import rounded
from fedrad.training.batches import Augment, Reader, model_input, orders, reader
from fedrad.training.dp.dp_sgd import (
    Private,
    image_reader,
    mean_losses,
    refuse_correction,
    samples,
    units_of,
)
from fedrad.training.evaluate import predict, result, thresholds_of
from fedrad.training.fit import Fitted, Gradient, Penalty, fit, load_into
from fedrad.training.objective import Objective, few_patients, label_counts, objective
from fedrad.training.optimizers import Step, stepper
from fedrad.training.rng import seeded

__all__ = ["Fitted", "LocalTask"]

_COMPUTING = ("_placed_model", "_own", "_trained")
_LEARNING = ("objective", "stepper")


@dataclass(frozen=True, eq=False)
class LocalTask:
    """One site's data, model and budget. Same arguments, same bits, whatever ran before.

    Args:
        site: its name.
        seed: the run's.
        task: what is learnt.
        data: the site's.
        model: a place to compute in; its weights are overwritten by every call, so sites of one
            process may share it.
        initial: returns the run's initial weights.
        metrics: that `tell` tells.
        optimizer: name, or name and options, from `OPTIMIZERS`; made anew for each fit, so momentum
            does not outlive a round.
        batch: images in a batch; the last of an epoch may be smaller.
        epochs: passes over the training images in a round, or
        steps: gradient steps in a round; exactly one of the two is set.
        clip: largest L2 norm of the gradients.
        augment: changes the training images, in [0, 1].
        weights: class weights, [columns, 2] or [classes].
        device: where to compute.
        precision: of the forward pass in training, as for `fit`.
        channels_last: whether channels are innermost in images and kernels.
        meter: is told how long training, reading and evaluation take.
        private: differential privacy of the training images, or None.
        trainer: is asked in place of `fit`; see `asking`.
        disclosure: what the site may tell of its patients.
        secret: of the site; empty in a simulation, whose draws repeat.
    """

    site: str
    seed: int
    task: Task
    data: SiteData
    model: nn.Module
    initial: Callable[[], State]
    metrics: tuple[Metric, ...]
    optimizer: str | Mapping[str, Any]
    batch: int
    epochs: int | None = None
    steps: int | None = None
    clip: float | None = None
    augment: Augment | None = None
    weights: Tensor | None = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant
    precision: torch.dtype = torch.float32
    channels_last: bool = False
    meter: PhaseTimer = field(default_factory=PhaseTimer)
    private: Private | None = None
    trainer: Callable[..., Fitted] | None = None
    disclosure: Disclosure = FULL_DISCLOSURE
    secret: bytes = b""

    def __post_init__(self) -> None:
        """Refuse a budget that says nothing, or two things."""
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set one of epochs and steps")

    @property
    def examples(self) -> int:
        """Return the number of training images; to the nearest ten where they are private."""
        images = self.data.images("train")
        return images if self.private is None else rounded(images)

    @property
    def patients(self) -> int:
        """Return the number of training patients."""
        return self.data.patients("train")

    def at(self, data: SiteData) -> "LocalTask":
        """Return another site's task; what does not depend on the site is shared, not made anew."""
        return self._shared(replace(self, site=data.site, data=data), *_COMPUTING, *_LEARNING)

    def asking(self, trainer: Callable[..., Fitted]) -> "LocalTask":
        """Return the same task, whose `fit` calls another with it and all that `fit` is given."""
        return self._shared(replace(self, trainer=partial(trainer, self)), *_COMPUTING, *_LEARNING)

    def varied(self, **changes: Any) -> "LocalTask":
        """Return the same site's task with another budget, meter or model to compute in."""
        places = () if "model" in changes else _COMPUTING
        return self._shared(replace(self, **changes), *places, *_LEARNING, "_read")

    def steps_per_round(self) -> int:
        """Return the gradient steps of a round; 0 without training images."""
        if not self.examples:
            return 0
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * -(-self.examples // self.batch)

    def label_counts(self) -> Tensor:
        """Return how often each label was read in the training images, as `label_counts` does.

        Raises:
            ConfigError: they are private.
        """
        if self.private is not None:
            raise ConfigError("privacy: counts of labels do not leave a site under dp_sgd")
        return label_counts(self.task, torch.from_numpy(self.data.y[self.data.rows["train"]]))

    def told_label_counts(self) -> Tensor:
        """Return the same for others, whose class weights need it exactly.

        Raises:
            ConfigError: they are private.
            PolicyError: the site tells no labels of training images, or fewer patients than its
                `min_cell` have one of them.
        """
        rows, least = self.data.rows["train"], self.disclosure.min_cell
        why = None
        if not self.disclosure.training_labels:
            why = "and its training patients are under a promise of privacy"
        elif least > 1 and few_patients(
            self.task, torch.from_numpy(self.data.y[rows]), self.data.patient[rows], least
        ):
            why = f"and fewer than {least} patients have one of them here (min_cell)"
        if why:
            raise PolicyError(
                f"{self.site}: class weights of all sites need counts of training labels, {why}; "
                "weigh by 'site', or leave this hospital out"
            )
        return self.label_counts()

    def fit(
        self,
        start: State,
        *,
        round: int,
        rounds: int = 1,
        penalty: Penalty | None = None,
        correction: State | None = None,
    ) -> Fitted:
        """Train from a state and return what came of it.

        Args:
            start: is not changed.
            round: from 1; with the run's seed and the site it fixes orders and augmentations.
            rounds: that many rounds' steps in one go, with one optimiser.
            penalty: (parameters, parameters at the start) -> scalar added to the loss.
            correction: name of a parameter -> what is added to its gradient in every step.

        Raises:
            TrainingDivergedError: the loss or a weight is no finite number.
            ConfigError: the start does not fit the model, or the optimiser's options do not fit.
        """
        if self.trainer is not None:
            return self.trainer(
                start, round=round, rounds=rounds, penalty=penalty, correction=correction
            )
        steps = rounds * self.steps_per_round()
        if not steps:
            return Fitted(clone(start), self.examples, 0, 0.0)
        load_into(self._own, start)
        params = list(self._trained.values())
        batches, gradient = self._steps(round, steps, params, correction)
        drawn = seeded(seed(self.seed, self.site, round, "model"), self.device)
        with drawn, self.meter.spent("training"):
            taken, loss = fit(
                self.model,
                params,
                self.meter.each("data", batches),
                self.objective,
                self.stepper(params),
                penalty=penalty,
                correction=None if correction is None else self._placed(correction),
                clip=self.clip,
                precision=self.precision,
                gradient=gradient,
            )
        state = clone(self._own)
        if not ((self.private or isfinite(loss)) and all_finite({"model": state})):
            raise TrainingDivergedError(
                f"{self.site}: round {round}: the loss or a weight is no finite number after "
                f"{taken} steps; lower the learning rate or set clip"
            )
        return Fitted(state, self.examples, taken, loss)

    def predict(self, state: State, *, split: str) -> Array:
        """Return a model's probabilities for a split: float64 [n, outputs], in the rows' order."""
        with self.meter.spent("evaluation"):
            load_into(self._own, state)
            return predict(self.model, self.data, split, self.objective, device=self.device)[0]

    def tell(
        self,
        scores: Array,
        *,
        split: str,
        draws: int = 0,
        thresholds: Mapping[str, Array] | None = None,
    ) -> SiteResult:
        """Return what the site tells of a model's scores for a split.

        Args:
            scores: as from `predict`.
            split: "train", "val" or "test".
            draws: of the patients' influence; with the same key in every arm and seed, so that
                models are compared on the same draws.
            thresholds: metric -> [outputs] log-odds.
        """
        with self.meter.spent("evaluation"):
            return result(
                scores,
                self.data,
                split,
                self.task,
                self.metrics,
                thresholds=thresholds or {},
                draws=draws,
                key=self._key,
                disclosure=self.disclosure,
            )

    def thresholds(self, scores: Array, *, split: str) -> dict[str, Array]:
        """Return metric -> [outputs] the log-odds at which it has its specificity on a split."""
        return thresholds_of(scores, self.data, split, self.task, self.metrics, self.disclosure)

    @cached_property
    def _key(self) -> bytes:
        # A hospital's also changes with its data: draws of two versions of them, side by side,
        # would tell what one patient more has changed.
        content = f"{self.site} {self.data.digest if self.secret else ''}"
        return blake2b(content.encode(), key=self.secret, digest_size=32).digest()

    def _steps(
        self, round: int, steps: int, params: Sequence[Tensor], correction: State | None
    ) -> tuple[Iterator[Any], Gradient | None]:
        """Return what the steps see, and, for private ones, what makes their gradients of it."""
        private = self.private
        if private is None:
            return self.batches(round, steps), None
        refuse_correction(correction)
        simulated = seed(self.seed, self.site, round, "noise")
        key = private.begin(self.data, self.model, round=round, steps=steps, seed=simulated)
        draws = Generator().manual_seed(seed(self.seed, self.site, round, "augment"))
        prepare = partial(model_input, augment=self.augment, generator=draws)
        plan, losses = private.plan, mean_losses(self.objective.losses)
        units = units_of(self.data, plan.unit)
        return (
            samples(units, rate=plan.rate, steps=steps, physical=plan.physical, key=key),
            private.gradient(
                key, self.model, params, losses, image_reader(self._read, prepare, plan.physical)
            ),
        )

    def batches(self, round: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a round's (x, y) of so many steps, shuffled and augmented by the round's seeds."""
        draws = Generator().manual_seed(seed(self.seed, self.site, round, "augment"))
        shuffle = seed(self.seed, self.site, round, "shuffle")
        for order in orders(self.examples, self.batch, steps, shuffle):
            for x, y in self._read(order, self.batch):
                x = model_input(x, self.augment, draws)
                yield x.contiguous(memory_format=self._layout) if x.dim() == 4 else x, y

    def _placed(self, correction: State) -> list[Tensor]:
        return [correction[name].to(self.device) for name in self._trained]

    def _shared(self, task: "LocalTask", *names: str) -> "LocalTask":
        task.__dict__.update({name: getattr(self, name) for name in names})
        return task

    @cached_property
    def _read(self) -> Reader:
        return reader(self.data, "train", self.device)

    @cached_property
    def objective(self) -> Objective:
        """Return what is minimised, with the class weights."""
        weights = None if self.weights is None else self.weights.to(self.device)
        return objective(self.task, weights)

    @cached_property
    def _placed_model(self) -> nn.Module:
        return self.model.to(self.device).to(memory_format=self._layout)

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @cached_property
    def _trained(self) -> dict[str, Tensor]:
        # Kept: walking through all modules costs as much as a layer's step.
        named = self._placed_model.named_parameters()
        return {name: value for name, value in named if value.requires_grad}

    @cached_property
    def _own(self) -> State:
        # The arrays stay the model's: a state is copied into them, never put in their place.
        return self._placed_model.state_dict()

    @cached_property
    def stepper(self) -> Callable[[Sequence[Tensor]], Step]:
        """Return what makes an optimiser over parameters, its options checked once."""
        return stepper(self.optimizer)

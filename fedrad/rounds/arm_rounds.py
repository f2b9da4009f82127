"""One arm and seed, round by round, which can resume.

The round loop is ours because a crash may cost at most a round: after each one the server's state
is on the disk, and a repeated round starts every site from what it knew before.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from flwr.serverapp import Grid

from fedrad.algorithms.base import Algorithm
from fedrad.assemble import algorithm_of, initial_state, metrics_of, server_task
from fedrad.config import POOLED, Experiment
from fedrad.core.names import listed
from fedrad.core.provenance import Provenance
from fedrad.core.state import Bundle, all_finite
from fedrad.core.timing import PhaseTimer
from fedrad.errors import SiteFailedError, TrainingDivergedError
from fedrad.rounds.checkpoint_writer import AsyncCheckpointWriter
from fedrad.rounds.client_app import COUNTS
from fedrad.rounds.evaluation import evaluate_arm, validate, validation_of
from fedrad.rounds.flower_sites import FlowerSites, Traffic
from fedrad.rounds.missing_sites import fill_missing_sites
from fedrad.rounds.nodes import Node
from fedrad.rounds.piggyback import PiggybackedValidation
from fedrad.rounds.progress import ProgressCallback
from fedrad.rounds.refusals import is_refusal, not_asked, unanswered_reason, will_train
from fedrad.rounds.retry import run_with_retry
from fedrad.rounds.site_sampling import sampled_sites
from fedrad.rounds.worker_time import RoundTiming, worker_time_of
from fedrad.runs import ArmFolder, Evaluation, RunFolder, sites_with_own_model

__all__ = ["ArmRounds", "RunSpec"]


@dataclass(frozen=True)
class RunSpec:
    """What one command runs.

    Args:
        experiment: the whole of it.
        arms, seeds: those of it that this command runs.
        held_out: sites that only test.
        folder: where it is recorded.
        progress: is told.
        profile: whether `profile.json` is written: where the workers' time went.
    """

    experiment: Experiment
    arms: Sequence[str]
    seeds: Sequence[int]
    held_out: Sequence[str]
    folder: RunFolder
    progress: ProgressCallback
    profile: bool = False

    def training(self, sites: Collection[str]) -> tuple[str, ...]:
        """Return those of the sites that train, sorted."""
        outside = {POOLED, *self.held_out}
        return tuple(sorted(name for name in sites if name not in outside))


class ArmRounds:
    """One arm and seed on its way through the rounds."""

    def __init__(
        self,
        spec: RunSpec,
        name: str,
        seed: int,
        grid: Grid,
        nodes: Mapping[str, Node],
        claim: Provenance,
        device: torch.device,
    ) -> None:
        self.name, self.seed, self.spec = name, seed, spec
        self.arm = spec.experiment.arm(name)
        self.algorithm: Algorithm = algorithm_of(self.arm)
        self.folder: ArmFolder = spec.folder.arm(name, seed)
        self.metrics = metrics_of(self.arm)
        self._spent = worker_time_of(grid)
        self._meter = self._spent.server if self._spent else PhaseTimer()
        self._server = server_task(self.arm, seed=seed, device=device, meter=self._meter)
        self._nodes = nodes
        self._grid = grid
        self._claim = claim
        text = spec.experiment.text()
        self._config: dict[str, str | int] = {"experiment": text, "arm": name, "seed": seed}
        self._common: Bundle = {}

    def run(self) -> None:
        """Run what is left of the arm, and record it; an arm that cannot go on says why."""
        progress = self.spec.progress
        self.folder.claim(self._claim)
        if self.folder.evaluated(self._claim):
            progress.skipped(self.name, self.seed)
            return
        start = time.monotonic()
        try:
            self._run_all()
        except (TrainingDivergedError, SiteFailedError) as error:
            progress.arm_stopped(self.name, self.seed, str(error))
            self.folder.stop(f"{error}")
            return
        progress.arm_done(self.name, self.seed, time.monotonic() - start)

    def _run_all(self) -> None:
        self._common = self._counts()
        if (final := self.folder.final()) is not None:
            self._evaluate_again(final)
            return
        last, state = self.folder.resume()
        if not last:
            state = self.algorithm.init(initial_state(self.arm, self.seed))
        self.spec.progress.arm_started(self.name, self.seed, last + 1)
        with AsyncCheckpointWriter(self.folder) as keeping:
            for number in range(last + 1, self.arm.rounds + 1):
                state = self._round(state, number, keeping)
        self.folder.finish(state, self._evaluation(state), self._claim)

    def _evaluate_again(self, state: Bundle) -> None:
        """Evaluate with the metrics and test sites that are asked for now; weights stay."""
        self._say("trained before; it is evaluated again with what is asked for now")
        had = sites_with_own_model(self.folder.evaluation())
        found = self._evaluation(state)
        if lost := had - sites_with_own_model(found):
            raise SiteFailedError(
                f"the models of their own that {listed(sorted(lost))} trained are no longer in "
                f"sites/SITE/{self.folder.name}: put them back, or train the arm anew in another "
                "folder, with --out"
            )
        self.folder.finish(state, found, self._claim)

    def _evaluation(self, state: Bundle) -> Evaluation:
        """Return the last word, over all sites, or, with a quorum, over those that answer.

        A site that fails is left out and all others are evaluated again, so that every cell, also
        the pooled ones, is over the same sites.
        """
        gone = self._refusing()
        while True:
            training, testing = (
                replace(self.sites(self.arm.rounds + 1, names), quorum=None)
                for names in (
                    [name for name in self.training if name not in gone],
                    [name for name in self.testing if name not in gone],
                )
            )
            try:
                found = run_with_retry(
                    partial(self._evaluated, state), training, testing, say=self._say
                )
            except SiteFailedError:
                lost = training.missing | testing.missing
                left = [name for name in training.names if name not in lost]
                if not lost or self.arm.quorum is None or len(left) < self.arm.quorum:
                    raise
                gone |= lost
                self._say(f"evaluated without {listed(sorted(gone))}")
                continue
            return fill_missing_sites(found, gone, self.algorithm, [m.name for m in self.metrics])

    def _refusing(self) -> dict[str, str]:
        """Return the sites that the evaluation goes without from its start, where a quorum may."""
        if self.arm.quorum is None:
            return {}
        nodes = {name: self._nodes[name] for name in self.testing}
        return not_asked(unanswered_reason(self._grid, nodes, self.name))

    def _evaluated(self, state: Bundle, training: FlowerSites, testing: FlowerSites) -> Evaluation:
        metrics, task = self.metrics, self.arm.task
        return evaluate_arm(
            self.algorithm, state, metrics, task, training=training, testing=testing
        )

    def _round(self, state: Bundle, number: int, keeping: AsyncCheckpointWriter) -> Bundle:
        start = time.monotonic()
        window = RoundTiming(self._spent)
        rider = self._rider(state, number)
        sites = replace(self.sites(number, self._participants(number)), rider=rider)
        after = run_with_retry(partial(self.algorithm.round, state, number), sites, say=self._say)
        if not all_finite(after):
            raise TrainingDivergedError(
                f"round {number}: the mean of the sites' weights is not finite"
            )
        seconds = round(time.monotonic() - start, 4)
        pace = window.told(len(sites.nodes), seconds)
        refused = sites.unasked
        missing = {**sites.missing, **not_asked(refused)}
        line = {
            "seconds": seconds,
            "bytes_down": sites.traffic.down,
            "bytes_up": sites.traffic.up,
            "steps": sites.traffic.steps,
            "drawn": [name for name in sites.names if name not in refused],
            "answered": [name for name in sites.names if name not in missing],
            "missing": missing,
            **sites.notes,
            "validation": {} if self._rides(number) else self._validation(after, number),
            **window.record(),
        }
        if rider is not None:
            keeping.settle()
            self._amend(rider, state, number - 1)
        keeping.keep(number, after, line)
        if not self._rides(number):
            self._tell(number, line, pace)
        return after

    def _validated(self, number: int) -> bool:
        every = self.arm.validate_every
        return bool(every) and (not number % every or number == self.arm.rounds)

    def _validation(self, state: Bundle, number: int) -> dict[str, dict[str, float | None]]:
        if not self._validated(number):
            return {}
        sites = self.sites(number + 1, self.training)
        spec = partial(validate, self.algorithm, state, metrics=self.metrics, task=self.arm.task)
        return run_with_retry(spec, sites, say=self._say)

    def _say(self, sentence: str) -> None:
        self.spec.progress.note(f"{self.name} seed {self.seed}: {sentence}")

    def _model(self, state: Bundle) -> Bundle:
        return {"model": state["model"]} if self.algorithm.shared else {}

    def _rides(self, number: int) -> bool:
        """Return whether a round's validation goes with the next round's messages."""
        slow = getattr(self._grid, "slow", False) and number < self.arm.rounds
        return (
            slow
            and not self.algorithm.cut
            and self._validated(number)
            and self.arm.sites_per_round is None
        )

    def _rider(self, state: Bundle, number: int) -> PiggybackedValidation | None:
        return (
            PiggybackedValidation(self._model(state))
            if number > 1 and self._rides(number - 1)
            else None
        )

    def _amend(self, rider: PiggybackedValidation, state: Bundle, number: int) -> None:
        """Record the validation of the round before, and tell of that round."""
        values = (
            validation_of(sorted(rider.replies.items()), self.metrics, self.arm.task)
            if rider.asked
            else self._validation(state, number)
        )
        self._tell(number, self.folder.amend(number, {"validation": values}), "")

    def _tell(self, number: int, line: Mapping[str, Any], pace: str) -> None:
        shown = list(line["validation"].values())
        primary = self.spec.experiment.primary
        metric = primary.metric if primary else self.metrics[0].name
        loss, value = _mean(shown, "loss"), _mean(shown, metric)
        self.spec.progress.round_done(
            self.name,
            self.seed,
            number,
            loss=loss,
            value=value,
            seconds=line["seconds"],
            missing=sorted(s for s, why in line["missing"].items() if not is_refusal(why)),
            pace=pace,
        )

    def sites(self, number: int, names: Sequence[str]) -> FlowerSites:
        """Return some sites as the federation of a round."""
        nodes = {name: self._nodes[name] for name in names}
        training = will_train(self._grid, nodes, self.name)
        return FlowerSites(
            grid=self._grid,
            nodes=nodes,
            # A hospital's policy may ask of how many sites a mean is made.
            config={**self._config, "training-sites": training},
            number=number,
            rounds=self.arm.rounds,
            server=self._server,
            # Of few sites, such as the one that pools the data, all must answer.
            quorum=min(self.arm.quorum or len(names), len(names)),
            deadline=self.arm.deadline,
            common=self._common,
            traffic=Traffic(),
            missing={},
            meter=self._meter,
            notes={},
        )

    @property
    def training(self) -> tuple[str, ...]:
        """The hospitals that train, sorted."""
        return self.spec.training(self._nodes)

    @property
    def testing(self) -> tuple[str, ...]:
        """The hospitals that test: those that train, then those that were held out."""
        return (*self.training, *sorted(self.spec.held_out))

    def _participants(self, number: int) -> tuple[str, ...]:
        if self.algorithm.pooled:
            return (POOLED,)
        some = self.arm.sites_per_round
        # What a site does for itself it does in every round: the draw is for the common model.
        home = not self.algorithm.shared or number > self.arm.rounds - self.algorithm.local_rounds
        if some is None or some >= len(self.training) or home:
            return self.training
        nodes = {name: self._nodes[name] for name in self.training}
        return sampled_sites(nodes, some, seed=self.seed, number=number)

    def _counts(self) -> Bundle:
        if self.arm.local.class_weights != "global":
            return {}
        sites = self.sites(1, self.training)
        counts = [reply.arrays["counts"]["train"] for _, reply in sites.gather("count", {})]
        return {COUNTS: {"train": sum(counts[1:], counts[0])}}


def _mean(values: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    known = [value for value in (one.get(key) for one in values) if value is not None]
    return sum(known) / len(known) if known else None

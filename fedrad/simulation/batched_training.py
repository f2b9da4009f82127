"""Runs the messages of a round to several sites at once, for devices that one does not fill.

A site's half is run until it asks for training. What several of them ask for is trained
together, in the way and in groups that were chosen at the first round; then each half is run
once more with its answer. It is a function of its message and memory, so it asks for the same
again.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message

from fedrad.assemble import algorithm_of
from fedrad.config import Experiment
from fedrad.errors import ConfigError, FedradError, TrainingDivergedError
from fedrad.rounds.records import config_of
from fedrad.runs import RunFolder
from fedrad.training.devices.autotune import Memory, TunedMode, autotune
from fedrad.training.devices.concurrency_modes import ConcurrencyMode, Train, trainer_of
from fedrad.training.devices.deferred_training import TrainingCall, TrainingRequested
from fedrad.training.devices.measured_concurrency import at_once
from fedrad.training.dp.private_arm import dp_config_of
from fedrad.training.fit import Fitted
from fedrad.training.local import LocalTask

__all__ = ["BatchedTrainer", "check_way"]

_TRIED = 16
"""Sites whose first steps are tried in each way."""
_RECORD = "concurrency.json"

Kind = tuple[str, str]
"""Arm and action: one kind of training, for which one way is chosen."""
MessageHandler = Callable[[Message], Message]
Found = Fitted | Exception


class BatchedTrainer:
    """Trains sites in the way that is chosen for each arm.

    Args:
        folder: the run's; keeps what was chosen, so that a run that goes on computes as it began.
        sites: how many there are.
        forced: the way to take; None tries those that are possible.
        memory: the device's, if it can be measured.
        note: is told in a sentence what was chosen and why.
        trainers: makes what trains in a way.
    """

    def __init__(
        self,
        folder: RunFolder,
        sites: int,
        *,
        forced: ConcurrencyMode | None = None,
        memory: Memory | None = None,
        note: Callable[[str], None],
        trainers: Callable[[ConcurrencyMode], Train] = trainer_of,
    ) -> None:
        self._folder, self._sites, self._forced = folder, sites, forced
        self._memory, self._note, self._trainers = memory, note, trainers
        self._choices: dict[Kind, TunedMode] = {} if forced else _read(folder.path / _RECORD)
        self._kind: Kind = ("", "")
        self._seed = ""
        self._playing: tuple[str, str, str] | None = None
        self._train: Train = trainers(ConcurrencyMode.EAGER)
        self._known: list[Found] = []
        self._at = 0

    def most(self, message: Message) -> int:
        """Return how many messages like this one are best run at once."""
        if message.metadata.message_type != "train":
            return 1
        choice = self._choices.get(_kind(message))
        return choice.at_once if choice else _TRIED

    def fit(self, task: LocalTask, start: Any, **how: Any) -> Fitted:
        """Answer a site's half that asks for training, or break it off until there is an answer.

        Raises:
            Asked: there is none yet.
            TrainingDivergedError: as `LocalTask.fit`.
        """
        if self._at == len(self._known):
            training = TrainingCall(task, start, **how)
            choice = self._choices.get(self._kind)
            if choice is None or choice.at_once > 1:
                raise TrainingRequested(training)
            self._known += self._trained([training])
        found = self._known[self._at]
        self._at += 1
        if isinstance(found, Exception):
            raise found
        return found

    def answers(self, messages: Sequence[Message], answer: MessageHandler) -> list[Message]:
        """Return the replies to as many of the messages as are trained at once, the first ones.

        Args:
            messages: of one exchange, no two to the same site.
            answer: runs one of them.

        Raises:
            ConfigError: the way that was asked for cannot do this training.
        """
        self._kind, self._seed = _kind(messages[0]), str(config_of(messages[0].content).get("seed"))
        known: dict[int, list[Found]] = {k: [] for k in range(len(messages))}
        replies: dict[int, Message] = {}
        while known:
            asked: dict[int, TrainingCall] = {}
            for k, found in known.items():
                self._known, self._at = found, 0
                try:
                    replies[k] = answer(messages[k])
                except TrainingRequested as broken_off:
                    asked[k] = broken_off.training
            trained = self._trained(list(asked.values())) if asked else []
            known = {k: [*known[k], one] for k, one in zip(asked, trained, strict=False)}
        self._known = []
        return [replies[k] for k in sorted(replies)]

    def _trained(self, asked: Sequence[TrainingCall]) -> list[Found]:
        """Return what came of the first of them, as many as are trained at once."""
        if not asked[0].task.steps_per_round():
            return [_alone(asked[0])]
        try:
            choice = self._choice(asked)
            train = self._trainer(choice.way)
            found, most = at_once(train, asked[: choice.at_once], choice.at_once)
        except TrainingDivergedError:
            # One by one, each site answers for itself.
            return [_alone(asked[0])]
        except torch.OutOfMemoryError:
            self._one_by_one()
            return [_alone(asked[0])]
        if most < choice.at_once:
            self._fewer(choice, most)
        return list(found)

    def _trainer(self, way: ConcurrencyMode) -> Train:
        playing = (*self._kind, self._seed)
        if playing != self._playing:
            # What was captured for another arm or seed holds memory, and the model of that one.
            self._train, self._playing = self._trainers(way), playing
        return self._train

    def _choice(self, asked: Sequence[TrainingCall]) -> TunedMode:
        if self._kind not in self._choices:
            arm, action = self._kind
            choice = autotune(
                asked,
                sites=self._sites,
                forced=self._forced,
                memory=self._memory,
                trainers=self._trainers,
                where=f"arm {arm}, {action}",
            )
            self._keep(choice)
            pace = f"{choice.at_once} sites" if choice.at_once > 1 else "one site"
            self._note(f"{arm}, {action}: trained {choice.way}, {pace} at a time ({choice.why})")
        return self._choices[self._kind]

    def _fewer(self, choice: TunedMode, most: int) -> None:
        arm, action = self._kind
        self._keep(TunedMode(choice.way, most, choice.why))
        self._note(
            f"{arm}, {action}: the device's memory was full with {choice.at_once} sites at once; "
            f"it goes on with {most}"
        )

    def _one_by_one(self) -> None:
        """Take the way that needs least memory from now on; where that fails, the site says so."""
        before = self._choices.get(self._kind)
        if before is not None and before.way is not ConcurrencyMode.EAGER:
            arm, action = self._kind
            self._keep(TunedMode(ConcurrencyMode.EAGER, 1, before.why))
            self._playing = None
            self._note(
                f"{arm}, {action}: the device's memory was full with one site trained "
                f"{before.way}; it goes on one site after the other"
            )

    def _keep(self, choice: TunedMode) -> None:
        self._choices[self._kind] = choice
        told = {
            "/".join(kind): {"way": one.way, "at_once": one.at_once, "why": one.why}
            for kind, one in self._choices.items()
        }
        self._folder.write(_RECORD, json.dumps(told, indent=1))


def _alone(asked: TrainingCall) -> Found:
    try:
        return asked.fit()
    except (FedradError, torch.OutOfMemoryError) as error:
        # Raised where the site's half asks; held without what it computed with.
        return error.with_traceback(None)


def _kind(message: Message) -> Kind:
    config = config_of(message.content)
    return str(config.get("arm", "")), str(config.get("action", ""))


def _read(path: Path) -> dict[Kind, TunedMode]:
    if not path.is_file():
        return {}
    found: dict[Kind, TunedMode] = {}
    for kind, one in json.loads(path.read_text(encoding="utf-8")).items():
        arm, _, action = kind.rpartition("/")
        found[arm, action] = TunedMode(
            ConcurrencyMode(one["way"]), int(one["at_once"]), str(one["why"])
        )
    return found


def check_way(
    way: ConcurrencyMode, experiment: Experiment, arms: Sequence[str], device: torch.device
) -> None:
    """Refuse a way that an arm or the device cannot have, before anything is run.

    What only the training itself tells (a penalty, a correction, the network) is told then.

    Raises:
        ConfigError: names the arm, and what is in the way.
    """
    if way in (ConcurrencyMode.GRAPH, ConcurrencyMode.STREAMS) and device.type != "cuda":
        raise ConfigError(f"--concurrency {way}: needs a CUDA device, found --device {device}")
    for name in arms if way is not ConcurrencyMode.EAGER else ():
        arm = experiment.arm(name)
        if algorithm_of(arm).streams:
            raise ConfigError(f"--concurrency {way}: arm {name} splits the network; say auto")
        if dp_config_of(arm):
            raise ConfigError(
                f"--concurrency {way}: arm {name} trains under differential privacy; say auto"
            )

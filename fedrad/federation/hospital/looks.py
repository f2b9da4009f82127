"""What the answer to a message looks like, found once for all messages that are alike."""

from typing import Any

import torch

from fedrad.config import Experiment, SiteFile
from fedrad.federation.describe import description
from fedrad.federation.hospital.asked import Task
from fedrad.federation.hospital.form import check_sent
from fedrad.federation.hospital.policy import UNMEASURED
from fedrad.federation.hospital.replies import numbers_in
from fedrad.federation.outline import Outline, empty_site, outline_of, shapes_of
from fedrad.federation.records import bundle_of

__all__ = ["Look", "Looks"]

Look = tuple[Outline, frozenset[str]]
"""An answer's names and shapes, and which of its states are updates."""

_MOST = 256


class Looks:
    """The looks of answers, kept."""

    def __init__(self) -> None:
        self._known: dict[Any, Look] = {}

    def of(
        self, site: SiteFile, task: Task, experiment: Experiment, arm: Experiment | None
    ) -> Look:
        """Return what the answer looks like, and which of its states are updates.

        Args:
            site: whose policy it is.
            task: what is asked.
            experiment: the whole of it.
            arm: the experiment as the arm sees it; None where a message is about no arm.

        Raises:
            Refused: the model that is sent is not the experiment's.
            ConfigError: the arm knows no such action.
        """
        key = (task.digest, task.arm, task.action, repr(shapes_of(task.sent)))
        if key not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = _look(site, task, experiment, arm)
        return self._known[key]


def _look(site: SiteFile, task: Task, experiment: Experiment, arm: Experiment | None) -> Look:
    if arm is None:
        cpu = torch.device("cpu")
        told = description(empty_site(experiment), experiment.task, cpu, digest="")
        return Outline(shapes_of(bundle_of(told)), frozenset(numbers_in(told))), frozenset()
    check_sent(site, arm, task.sent)
    number = max(task.round, 1)
    found = outline_of(arm, task.actions, task.sent, {}, round=number)
    training = [one for one in task.actions if one not in UNMEASURED]
    updates = outline_of(arm, training, task.sent, {}, round=number)
    return found, frozenset(updates.arrays)

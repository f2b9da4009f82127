"""What the answer to a message looks like, found once for all messages that are alike."""

from typing import Any

import torch

from fedrad.config import Experiment, SiteFile
from fedrad.deployment.reply_spec import ReplySpec, empty_site, infer_reply_spec, specs_of
from fedrad.deployment.site.message_checks import check_sent
from fedrad.deployment.site.parsed_message import TaskRequest
from fedrad.deployment.site.policy import UNMEASURED
from fedrad.deployment.site.reply_validation import numbers_in
from fedrad.rounds.records import bundle_of
from fedrad.rounds.site_summary import site_summary

__all__ = ["ExpectedReply", "ReplySpecs"]

ExpectedReply = tuple[ReplySpec, frozenset[str]]
"""An answer's names and shapes, and which of its states are updates."""

_MOST = 256


class ReplySpecs:
    """The looks of answers, kept."""

    def __init__(self) -> None:
        self._known: dict[Any, ExpectedReply] = {}

    def of(
        self, site: SiteFile, task: TaskRequest, experiment: Experiment, arm: Experiment | None
    ) -> ExpectedReply:
        """Return what the answer looks like, and which of its states are updates.

        Args:
            site: whose policy it is.
            task: what is asked.
            experiment: the whole of it.
            arm: the experiment as the arm sees it; None where a message is about no arm.

        Raises:
            PolicyError: the model that is sent is not the experiment's.
            ConfigError: the arm knows no such action.
        """
        key = (task.digest, task.arm, task.action, repr(specs_of(task.sent)))
        if key not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = _look(site, task, experiment, arm)
        return self._known[key]


def _look(
    site: SiteFile, task: TaskRequest, experiment: Experiment, arm: Experiment | None
) -> ExpectedReply:
    if arm is None:
        cpu = torch.device("cpu")
        told = site_summary(empty_site(experiment), experiment.task, cpu, digest="")
        return ReplySpec(specs_of(bundle_of(told)), frozenset(numbers_in(told))), frozenset()
    check_sent(site, arm, task.sent)
    number = max(task.round, 1)
    found = infer_reply_spec(arm, task.actions, task.sent, {}, round=number)
    training = [one for one in task.actions if one not in UNMEASURED]
    updates = infer_reply_spec(arm, training, task.sent, {}, round=number)
    return found, frozenset(updates.arrays)

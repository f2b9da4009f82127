"""Sites that were away at the roll call, and come in the middle of a run.

Such a site describes itself before it is asked anything else: what it answers is held against what
it told, and a site that could skip this would weigh what it likes.
"""

from collections.abc import Mapping, Sequence

from flwr.app import Message

from fedrad.config import Experiment
from fedrad.data.base import SiteData
from fedrad.deployment.coordinator.network import NetworkGrid
from fedrad.deployment.coordinator.plausibility import SiteClaims
from fedrad.deployment.coordinator.reply_checker import ReplyChecker
from fedrad.deployment.coordinator.site_discovery import (
    DiscoveredSites,
    SiteSummaries,
    describing,
)
from fedrad.rounds.progress import Notify
from fedrad.rounds.refusals import refusal_sentences

__all__ = ["Latecomers"]


class Latecomers:
    """Takes in the descriptions of sites that were away.

    Args:
        experiment: what they describe themselves for.
        arms, seeds: those of it that are going to run.
        met: the roll call's.
        grid: is told whom to ask for a description, and which arms a site refuses.
        expected: is told what a site's numbers are held against.
        say: is told who refuses which arm.

    Attributes:
        data: stand-ins for the data of those that came.
    """

    def __init__(
        self,
        experiment: Experiment,
        arms: Sequence[str],
        seeds: Sequence[int],
        met: DiscoveredSites,
        grid: NetworkGrid,
        expected: ReplyChecker,
        say: Notify,
    ) -> None:
        away = met.nodes.keys() - met.data.keys() - met.failed.keys()
        self._names: Mapping[int, str] = {met.nodes[name].id: name for name in away}
        self._experiment, self._arms = experiment, arms
        self._grid, self._expected, self._say = grid, expected, say
        self.data: dict[str, SiteData] = {}
        grid.strangers = dict.fromkeys(self._names, describing(experiment, arms, seeds))
        grid.introduce = self.take

    def take(self, node: int, message: Message) -> str | None:
        """Take in a description; return why it cannot be used, or None."""
        name, roll = self._names[node], SiteSummaries(self._experiment, self._arms, 0)
        roll.take(name, message)
        if name in roll.failed:
            return roll.failed[name]
        self.data[name] = roll.data[name]
        told = SiteClaims.of(roll.data[name], private=self._expected.private)
        self._expected.told = {**self._expected.told, node: told}
        self._grid.unasked = {**self._grid.unasked, node: roll.refuses[name]}
        for sentence in refusal_sentences({name: roll.refuses[name]}):
            self._say(sentence)
        return None

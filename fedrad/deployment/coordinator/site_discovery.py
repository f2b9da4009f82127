"""Who is there: registered sites are asked to describe themselves before round 1."""

import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from fedrad.config import Experiment
from fedrad.core.names import by_reason, listed
from fedrad.core.printable import printable
from fedrad.data.base import SiteData
from fedrad.deployment.coordinator.network import NetworkGrid
from fedrad.deployment.coordinator.plausibility import MOST_IMAGES, SiteClaims
from fedrad.deployment.coordinator.wait_reports import duration_text
from fedrad.errors import FedradError, SiteFailedError
from fedrad.rounds.nodes import Node
from fedrad.rounds.progress import Notify
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.refusals import REFUSALS_KEY, refusal_sentences
from fedrad.rounds.site_summary import site_from_summary, versions_of

__all__ = ["DiscoveredSites", "SiteSummaries", "describing", "discover_sites", "refusals"]

log = logging.getLogger(__name__)

_SAY_S = 30.0
_POLL_S = 0.1
_REGISTERED_S = 30.0
_LONGEST = 100
"""Characters of a name or version that a site tells."""


@dataclass(frozen=True)
class DiscoveredSites:
    """The sites of a federation.

    Args:
        nodes: of all registered sites by name; of those that did not answer, without images.
        data: stand-ins for the data of those that answered.
        versions: of those that answered: fedrad, torch, device.
        failed: site -> why it takes no part, if it said so or its answer cannot be used.
        refuses: site -> arm -> why the site will not take part in that arm, of those asked for.
    """

    nodes: Mapping[str, Node]
    data: Mapping[str, SiteData]
    versions: Mapping[str, Mapping[str, str]]
    failed: Mapping[str, str] = field(default_factory=dict)
    refuses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def unasked(self) -> dict[int, dict[str, str]]:
        """Return node -> arm -> why it is not asked; "" is every arm."""
        found = {site: {"": f"at the roll call: {why}"} for site, why in self.failed.items()}
        for site, arms in self.refuses.items():
            found[site] = {**found.get(site, {}), **arms}
        return {self.nodes[site].id: arms for site, arms in found.items()}

    def refusals(self) -> list[str]:
        """Return sentences: who refuses which arm, and why."""
        return refusal_sentences(self.refuses)

    def told(self, *, private: bool) -> dict[int, SiteClaims]:
        """Return what each site that answered told, by its node."""
        return {
            self.nodes[site].id: SiteClaims.of(data, private=private)
            for site, data in self.data.items()
        }


def describing(experiment: Experiment, arms: Sequence[str], seeds: Sequence[int]) -> RecordDict:
    """Return what a site is asked: to describe itself, and to say which of these arms it refuses.

    Args:
        experiment: the whole of it.
        arms: those of it that are going to run.
        seeds: of each of them.
    """
    text = experiment.text()
    asked = {"experiment": text, "action": "describe", "arms": [*arms], "seeds": [*seeds]}
    return pack({}, config=asked)


def discover_sites(
    grid: NetworkGrid,
    experiment: Experiment,
    sites: Collection[str],
    *,
    arms: Sequence[str],
    seeds: Sequence[int],
    wait: float,
    say: Notify,
) -> DiscoveredSites:
    """Ask all registered sites to describe themselves, and wait for those that are away.

    Args:
        grid: over the coordinator's SuperLink.
        experiment: what they are to describe themselves for.
        sites: whom the coordinator's kit names; all must be registered.
        arms: those of the experiment that are going to run.
        seeds: of each of them.
        wait: seconds; after them a quorum will do.
        say: is told who is waited for.

    A site that says no, or whose answer cannot be used, is named, and the run goes on without it
    where its quorum allows.

    Raises:
        SiteFailedError: a site is not registered, or too few gave an answer that can be used in
            time.
    """
    infos = _registered(grid, sites)
    content = describing(experiment, arms, seeds)
    names = sorted(infos)
    asked = [grid.create_message(content, "query", infos[n].node_id, "0") for n in names]
    numbers = dict(zip(grid.push_messages(asked), names, strict=True))
    needed = _needed(experiment, len(names))
    roll = SiteSummaries(experiment, arms, needed)
    _collect(grid, numbers, infos, roll, wait, say)
    if roll.failed:
        say(f"goes on without {by_reason(roll.failed)}")
    images = {name: one.images("train") for name, one in roll.data.items()}
    return DiscoveredSites(
        {name: _node(infos[name], images.get(name, 0), roll.told.get(name, {})) for name in names},
        {name: roll.data[name] for name in sorted(roll.data)},
        {name: roll.told[name] for name in sorted(roll.data)},
        dict(sorted(roll.failed.items())),
        {name: arms for name, arms in sorted(roll.refuses.items()) if arms},
    )


@dataclass
class SiteSummaries:
    """The answers as they come in: those that can be used, and why others cannot.

    Args:
        experiment: what sites describe themselves for.
        arms: those of it that are going to run.
        needed: so many answers that can be used.
        data: stand-ins for the data of those that answered.
        told: their versions.
        refuses: arm -> why, of each.
        failed: why an answer cannot be used.
    """

    experiment: Experiment
    arms: Sequence[str]
    needed: int
    data: dict[str, SiteData] = field(default_factory=dict)
    told: dict[str, Mapping[str, str]] = field(default_factory=dict)
    refuses: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, message: Message) -> None:
        """Take in a site's answer."""
        try:
            if message.has_error():
                raise SiteFailedError(message.error.reason or "unknown error")
            self.data[name] = _data(name, message, self.experiment)
            self.refuses[name] = refusals(config_of(message.content), self.arms)
            told = versions_of(message.content)
            self.told[name] = {key: printable(value, _LONGEST) for key, value in told.items()}
        except FedradError as error:
            self._fail(name, str(error))
        except Exception as error:
            # What this stumbles over is what the site has sent.
            log.info("%s: its description cannot be read", name, exc_info=error)
            self._fail(name, f"its description cannot be read ({type(error).__name__})")

    def _fail(self, name: str, reason: str) -> None:
        self.data.pop(name, None)
        self.failed[name] = printable(reason)

    def check(self, left: int) -> None:
        """Raise if the quorum can no longer be met, however those that are left answer.

        Raises:
            SiteFailedError: names who failed, and why.
        """
        if self.failed and len(self.data) + left < self.needed:
            told = by_reason(dict(sorted(self.failed.items())))
            raise SiteFailedError(
                f"roll call: the experiment needs {self.needed} sites and cannot have them ({told})"
            )


def refusals(config: Mapping[str, Any], arms: Collection[str]) -> dict[str, str]:
    """Return arm -> why a site will not take part in it, as its description says.

    Raises:
        SiteFailedError: what it says cannot be read.

    >>> refusals({"refuses": '{"private": "epsilon 5.5 of the 3 that are left"}'}, ["private"])
    {'private': 'epsilon 5.5 of the 3 that are left'}
    """
    try:
        found = json.loads(str(config.get(REFUSALS_KEY, "{}")))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(why, str) for why in found.values()):
        raise SiteFailedError("which arms it refuses cannot be read")
    return {arm: printable(found[arm]) for arm in arms if arm in found}


def _registered(grid: NetworkGrid, sites: Collection[str]) -> dict[str, NodeInfo]:
    """Return the registered sites; a coordinator that has just started takes them in one by one."""
    if not sites:
        raise SiteFailedError(
            "the coordinator's kit names no site; fedrad provision makes their kits"
        )
    ends = time.monotonic() + _REGISTERED_S
    while True:
        nodes = grid.look(0.0).values()
        infos = {info.name: info for info in nodes if info.status != "unregistered"}
        missing = sorted(set(sites) - set(infos))
        if not missing:
            return infos
        if time.monotonic() > ends:
            raise SiteFailedError(
                f"the coordinator has not registered {listed(missing)}; start it again, so that "
                "it reads its kit"
            )
        time.sleep(_POLL_S)


def _node(info: NodeInfo, images: int, told: Mapping[str, str]) -> Node:
    return Node(info.node_id, images, told.get("data", ""), told.get("machine", ""))


def _needed(experiment: Experiment, sites: int) -> int:
    return min(experiment.quorum or sites, sites)


def _collect(
    grid: NetworkGrid,
    numbers: dict[str, str],
    infos: Mapping[str, NodeInfo],
    roll: SiteSummaries,
    wait: float,
    say: Notify,
) -> None:
    start, said = time.monotonic(), float("-inf")
    while numbers:
        came = list(grid.pull_messages(list(numbers)))
        for message in came:
            roll.take(numbers.pop(message.metadata.reply_to_message_id), message)
        roll.check(len(numbers))
        if came:
            continue  # Those that are here already are not late.
        waited = time.monotonic() - start
        if numbers and waited > wait:
            away = listed(sorted(numbers.values()))
            if len(roll.data) >= roll.needed:
                say(f"goes on without {away}")
                return
            failed = f" ({by_reason(roll.failed)})" if roll.failed else ""
            raise SiteFailedError(
                f"{len(roll.data)} of {roll.needed} sites answered{failed}; waited for {away}"
            )
        if numbers and time.monotonic() - said > _SAY_S and waited > 3:
            said = time.monotonic()
            say(_waits(grid, numbers.values(), infos, wait - waited))
        time.sleep(_POLL_S)


def _waits(
    grid: NetworkGrid, names: Iterable[str], infos: Mapping[str, NodeInfo], left: float
) -> str:
    """Return who is waited for, and for how long at most."""
    now = grid.look()
    told = []
    for name in sorted(names):
        info = now.get(infos[name].node_id)
        online = info is not None and info.status == "online"
        told.append(f"{name} ({'is at work' if online else 'is not connected'})")
    return f"waiting for {', '.join(told)}, for up to {duration_text(left)} more"


def _data(name: str, message: Message, experiment: Experiment) -> SiteData:
    told = str(config_of(message.content).get("site", ""))
    if told != name:
        raise SiteFailedError(
            f"the key of {name} is used by a site that says it is {printable(told, _LONGEST)!r}; "
            "each site needs its own startup kit and its own name"
        )
    # Before anything of that size is made of them.
    for counts in bundle_of(message.content).get("labels", {}).values():
        if counts.numel() and int(counts.double().sum(-1).max()) > MOST_IMAGES:
            raise SiteFailedError(f"it tells of more than {MOST_IMAGES} images in one split")
    data = site_from_summary(message.content, experiment.task)
    images = numbers_of(message.content).get("num-examples", 0.0)
    if images != data.images("train"):
        raise SiteFailedError(
            f"it tells of {images:g} training images and {data.images('train')} labels"
        )
    return data

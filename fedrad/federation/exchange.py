"""The two verbs of an algorithm, over any of Flower's Grids.

A message goes to every site of the round, replies are taken as they come and handed on in a fixed
order of sites, so that sums are the same bits whatever the order of arrival. Silent, failed and
late sites are named; with the quorum met the round goes on without them.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedrad.algorithms.base import Reply
from fedrad.core.meter import Meter
from fedrad.core.state import Bundle, Mean, num_bytes
from fedrad.errors import SiteFailed, TrainingDiverged
from fedrad.federation.blocks import BLOCK, WEIGHT, Part, fold, part_of
from fedrad.federation.records import bundle_of, config_of, numbers_of, pack

__all__ = ["FlowerSites", "Node", "Traffic", "nodes_of"]

log = logging.getLogger(__name__)

_POLL_S = 0.05
_NODES_S = 60.0
_SETTLED_S = 0.5
MOST_BLOCKS = 32
"""Sums are taken within so many blocks of sites at most, so few partial sums are ever held."""

_QUERIES = frozenset({"count", "describe", "share"})
_EVALUATIONS = frozenset({"test", "tune", "validate"})


@dataclass
class Traffic:
    """Bytes of arrays that crossed between server and sites, without framing."""

    down: int = 0
    up: int = 0


@dataclass(frozen=True)
class Node:
    """Where a site is reached, and how many training images it says it has."""

    id: int
    images: int


@dataclass(frozen=True)
class FlowerSites:
    """The federation of one round, as an algorithm sees it (`algorithms.base.Sites`).

    Args:
        grid: Flower's.
        nodes: of the sites of this round, by name.
        config: goes with every message: experiment, arm, seed.
        number: the round.
        rounds: of the whole run.
        common: arrays that go with every message (the label counts of all sites).
        quorum: least number of sites that must answer; None is all of them.
        deadline: seconds that a round may wait.
        traffic: is added to.
        missing: site -> reason, is added to.
        meter: is told how long sums take here.
    """

    grid: Grid
    nodes: Mapping[str, Node]
    config: Mapping[str, str | int]
    number: int
    rounds: int
    quorum: int | None = None
    deadline: float = 3600.0
    common: Bundle = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    missing: dict[str, str] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the sites of this round, sorted."""
        return tuple(sorted(self.nodes))

    def only(self, *names: str) -> "FlowerSites":
        """Return the same round with some of its sites."""
        return replace(self, nodes={name: self.nodes[name] for name in names})

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        """Return the weighted mean of the replies' arrays and the sums of their numbers.

        Replies are added up within fixed blocks of sites, and the blocks in their order: the same
        bits whatever the order of arrival, and wherever a block is added up.

        Raises:
            SiteFailed: fewer sites than the quorum answered, or none of them has any weight.
            TrainingDiverged: a site's loss or weights are no numbers any more.
        """
        mean, numbers, failed = Mean(), dict[str, float](), dict[str, str]()
        for part in self._parts(action, send, weight, failed):
            with self.meter.spent("aggregation"):
                mean.merge(part.mean)
            self.traffic.up += part.bytes_up
            for key, value in part.numbers.items():
                numbers[key] = numbers.get(key, 0.0) + value
        self._settle(action, failed)
        if not mean.total > 0:
            raise SiteFailed(f"round {self.number}, {action}: no site has any {weight}")
        return Reply(mean.value(), numbers)

    def gather(self, action: str, send: Bundle) -> Iterator[tuple[str, Reply]]:
        """Yield each site's reply, sorted by site, and let go of it.

        Raises:
            SiteFailed: fewer sites than the quorum answered.
            TrainingDiverged: a site's loss or weights are no numbers any more.
        """
        failed: dict[str, str] = {}
        asked = {site: self._question(site) for site in self.names}
        for site, content in self._in_order(action, send, asked, failed):
            reply = Reply(bundle_of(content), numbers_of(content))
            self.traffic.up += num_bytes(reply.arrays)
            yield site, reply
        self._settle(action, failed)

    def _parts(
        self, action: str, send: Bundle, weight: str, failed: dict[str, str]
    ) -> Iterator[Part]:
        """Yield the blocks' sums in their order, added up by the grid's workers or here."""
        blocks = self._blocks()
        if getattr(self.grid, "folds", False):
            asked = {
                ",".join(block): self._question(
                    block[0], **{BLOCK: ",".join(block), WEIGHT: weight}
                )
                for block in blocks
            }
            for _, content in self._in_order(action, send, asked, failed):
                part = part_of(content)
                self._check(part.failed)
                failed.update(part.failed)
                yield part
            return
        block_of = {site: block for block in blocks for site in block}
        asked = {site: self._question(site) for site in block_of}
        part, at = Part(), blocks[0]
        for site, content in self._in_order(action, send, asked, failed):
            if block_of[site] != at:
                yield part
                part, at = Part(), block_of[site]
            with self.meter.spent("aggregation"):
                fold(part, Reply(bundle_of(content), numbers_of(content)), weight)
        yield part

    def _question(self, site: str, **settings: str) -> tuple[int, dict[str, str]]:
        return self.nodes[site].id, settings

    def _blocks(self) -> list[tuple[str, ...]]:
        """Return the sites in at most 32 blocks, those with the most images first."""
        order = sorted(self.names, key=lambda site: (-self.nodes[site].images, site))
        size = -(-len(order) // MOST_BLOCKS)
        return [tuple(order[at : at + size]) for at in range(0, len(order), size)]

    def _in_order(
        self,
        action: str,
        send: Bundle,
        asked: Mapping[str, tuple[int, dict[str, str]]],
        failed: dict[str, str],
    ) -> Iterator[tuple[str, RecordDict]]:
        """Yield the replies in the order of the questions; early ones are held until their turn."""
        early: dict[str, RecordDict | None] = {}
        rest = iter(asked)
        turn = next(rest, None)
        for key, content in self._replies(action, send, asked, failed):
            early[key] = content
            while turn is not None and turn in early:
                ready = early.pop(turn)
                if ready is not None:
                    yield turn, ready
                turn = next(rest, None)

    def _settle(self, action: str, failed: Mapping[str, str]) -> None:
        self.missing.update(failed)
        answered = len(self.nodes) - len(failed)
        if failed and answered < (self.quorum or len(self.nodes)):
            told = "; ".join(f"{site}: {reason}" for site, reason in sorted(failed.items()))
            raise SiteFailed(
                f"round {self.number}, {action}: {answered} of {len(self.nodes)} sites answered, "
                f"the quorum is {self.quorum or len(self.nodes)} ({told})"
            )

    def _replies(
        self,
        action: str,
        send: Bundle,
        asked: Mapping[str, tuple[int, dict[str, str]]],
        failed: dict[str, str],
    ) -> Iterator[tuple[str, RecordDict | None]]:
        """Yield the replies as they come, None for each that failed or was too late."""
        arrays = pack({**send, **self.common})
        self.traffic.down += num_bytes(send) * len(self.nodes)
        messages = [
            self.grid.create_message(
                self._content(arrays, action, settings), _kind(action), node, str(self.number)
            )
            for node, settings in asked.values()
        ]
        waiting = dict(zip(self.grid.push_messages(messages), asked, strict=True))
        ends = time.monotonic() + self.deadline
        while waiting:
            pulled = list(self.grid.pull_messages(list(waiting)))
            for message in pulled:
                key = waiting.pop(message.metadata.reply_to_message_id)
                yield key, self._received(key, message, failed)
            if waiting and time.monotonic() > ends:
                for key in sorted(waiting.values()):
                    self._fail(key, f"no answer within {self.deadline:g} s", failed)
                    yield key, None
                return
            if waiting and not pulled:
                time.sleep(_POLL_S)

    def _content(self, arrays: RecordDict, action: str, settings: dict[str, str]) -> RecordDict:
        """Return a message's content; all messages of an exchange share the same arrays."""
        content = RecordDict(dict(arrays))
        content["config"] = ConfigRecord(
            {**self.config, **settings, "action": action, "server-round": self.number}
        )
        return content

    def _received(self, key: str, message: Message, failed: dict[str, str]) -> RecordDict | None:
        if not message.has_error():
            return message.content
        self._fail(key, message.error.reason or "unknown error", failed)
        self._check(failed)
        return None

    def _fail(self, key: str, reason: str, failed: dict[str, str]) -> None:
        failed.update(dict.fromkeys(key.split(","), reason))

    def _check(self, failed: Mapping[str, str]) -> None:
        """A site whose loss is no number stops the arm; others may be done without."""
        for reason in failed.values():
            if reason.startswith(TrainingDiverged.__name__):
                raise TrainingDiverged(reason.partition(": ")[2])


def nodes_of(grid: Grid, config: Mapping[str, str | int]) -> dict[str, Node]:
    """Return every node by its site's name, by asking it.

    Raises:
        SiteFailed: there is no node, one does not say its name, or two say the same one.
    """
    content = pack({}, config={**config, "action": "describe"})
    asked = [grid.create_message(content, "query", node, "0") for node in _node_ids(grid)]
    nodes: dict[str, Node] = {}
    for reply in grid.send_and_receive(asked):
        if reply.has_error():
            raise SiteFailed(f"a site did not say its name: {reply.error.reason}")
        site = str(config_of(reply.content)["site"])
        if site in nodes:
            raise SiteFailed(f"two nodes say that they are {site}")
        images = int(numbers_of(reply.content)["num-examples"])
        nodes[site] = Node(reply.metadata.src_node_id, images)
    return nodes


def _node_ids(grid: Grid) -> list[int]:
    """Return the nodes; where none is known yet, wait until there are some and no more come.

    Flower's simulation starts the server before it has made its nodes.
    """
    found = list(grid.get_node_ids())
    ends = time.monotonic() + _NODES_S
    while not found and time.monotonic() < ends:
        time.sleep(_POLL_S)
        found = list(grid.get_node_ids())
        while found and found != (later := _after(grid, _SETTLED_S)):
            found = later
    if not found:
        raise SiteFailed(f"no site has come within {_NODES_S:g} s")
    return found


def _after(grid: Grid, seconds: float) -> list[int]:
    time.sleep(seconds)
    return list(grid.get_node_ids())


def _kind(action: str) -> str:
    if action in _QUERIES:
        return "query"
    return "evaluate" if action in _EVALUATIONS else "train"

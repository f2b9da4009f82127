"""The two verbs of an algorithm, over any of Flower's Grids.

A message goes to every site of the round, replies are taken as they come and handed on in a fixed
order of sites, so that sums are the same bits whatever the order of arrival. Silent, failed and
late sites are named; with the quorum met the round goes on without them.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedrad.algorithms.base import Reply, Streams
from fedrad.core.names import by_reason
from fedrad.core.printable import printable
from fedrad.core.state import Bundle, num_bytes
from fedrad.core.timing import PhaseTimer
from fedrad.errors import FedradError, RunError, SiteFailedError, TrainingDivergedError
from fedrad.rounds.metered_streams import MeteredStreams, StreamBroken, Traffic
from fedrad.rounds.nodes import Node
from fedrad.rounds.partial_aggregation import (
    GROUP_SIZE,
    WEIGHT,
    PartialAggregate,
    accumulate,
    groups_of_sites,
    merge_partial,
    partial_of,
)
from fedrad.rounds.piggyback import PIGGYBACK, PiggybackedValidation
from fedrad.rounds.records import pack
from fedrad.rounds.refusals import refusal_hint, unanswered_reason
from fedrad.rounds.replies import arrays_and_numbers
from fedrad.rounds.site_streams import StreamingGrid
from fedrad.training.server import ServerTask

__all__ = ["FlowerSites", "Traffic"]

log = logging.getLogger(__name__)

_POLL_S = 0.05
_QUERIES = frozenset({"count", "describe", "share"})
_EVALUATIONS = frozenset({"test", "tune", "validate"})


@dataclass(frozen=True)
class FlowerSites:
    """The federation of one round, as an algorithm sees it (`algorithms.base.Sites`).

    Args:
        grid: Flower's.
        nodes: of the sites of this round, by name.
        config: goes with every message: experiment, arm, seed.
        number: the round.
        rounds: of the whole run.
        server: what the server computes with, in split learning.
        common: arrays that go with every message (the label counts of all sites).
        quorum: least number of sites that must answer; None is all of them.
        deadline: seconds that a round may wait.
        traffic: is added to.
        missing: site -> reason, is added to.
        meter: is told how long sums take here.
        notes: of the round, for the record; is added to.
        rider: a validation that goes with the first exchange of the model.
    """

    grid: Grid
    nodes: Mapping[str, Node]
    config: Mapping[str, str | int]
    number: int
    rounds: int
    server: ServerTask
    quorum: int | None = None
    deadline: float = 3600.0
    common: Bundle = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    missing: dict[str, str] = field(default_factory=dict)
    meter: PhaseTimer = field(default_factory=PhaseTimer)
    notes: dict[str, object] = field(default_factory=dict)
    rider: PiggybackedValidation | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the sites of this round, sorted."""
        return tuple(sorted(self.nodes))

    @property
    def unasked(self) -> dict[str, str]:
        """Return the sites of this round that are not asked anything of its arm, and why."""
        return unanswered_reason(self.grid, self.nodes, str(self.config.get("arm", "")))

    def only(self, *names: str) -> "FlowerSites":
        """Return the same round with some of its sites."""
        return replace(self, nodes={name: self.nodes[name] for name in names})

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        """Return the weighted mean of the replies' arrays and the sums of their numbers.

        Replies are added up within fixed blocks of sites, and the blocks in their order.

        Raises:
            SiteFailedError: fewer sites than the quorum answered, or none of them has any weight.
            RunError: the same, and one of them could not write.
            TrainingDivergedError: the same, and a site's loss or weights are no numbers any more.
        """
        whole, failed = PartialAggregate(), dict[str, str]()
        for part in self._parts(action, send, weight, failed):
            with self.meter.spent("aggregation"):
                merge_partial(whole, part)
        self.traffic.up += whole.bytes_up
        self.traffic.steps += int(whole.numbers.get("steps", 0))
        self._settle(action, failed)
        return self._mean_of(whole, action, weight)

    def gather(self, action: str, send: Bundle) -> Iterator[tuple[str, Reply]]:
        """Yield each site's reply, sorted by site, and let go of it.

        Raises:
            SiteFailedError: fewer sites than the quorum answered.
            RunError: the same, and one of them could not write.
            TrainingDivergedError: the same, and a site's loss or weights are no numbers any more.
        """
        failed: dict[str, str] = {}
        asked = {site: (self.nodes[site].id, dict[str, str]()) for site in self.names}
        for site, content in self._in_order(action, send, asked, failed):
            reply = self._opened(site, content, send, failed)
            if reply is None:
                continue
            self.traffic.up += num_bytes(reply.arrays)
            self.traffic.steps += int(reply.numbers.get("steps", 0))
            yield site, reply
        self._settle(action, failed)

    @contextmanager
    def stream(self, action: str, send: Mapping[str, Bundle]) -> Iterator[Streams]:
        """Open a stream to each site named, with what is sent to it at the start.

        Raises:
            SiteFailedError: this way of running has no streams, or too few sites came to the end.
            TrainingDivergedError: the same, and a site's loss or weights are no numbers any more.
        """
        if not hasattr(self.grid, "streams"):
            raise SiteFailedError(
                f"round {self.number}, {action}: this runtime opens no streams, which split "
                "learning needs"
            )
        grid: StreamingGrid = self.grid
        messages = {
            site: self.grid.create_message(
                self._content(pack({**send[site], **self.common}), action, {}),
                _kind(action),
                self.nodes[site].id,
                str(self.number),
            )
            for site in sorted(send)
        }
        refused = self.unasked
        self.traffic.down += sum(num_bytes(send[site]) for site in send if site not in refused)
        with grid.streams(messages, deadline=self.deadline) as channels:
            streams = MeteredStreams(channels, list(messages), self.traffic)
            yield streams
        self._check(streams.failed)
        self._settle(action, streams.failed, StreamBroken if streams.broken else SiteFailedError)

    def average(
        self, replies: Iterable[tuple[str, Reply]], *, weight: str = "num-examples"
    ) -> Reply:
        """Return the bits that `mean` would return of the same replies."""
        found, whole = dict(replies), PartialAggregate()
        for block in self._blocks():
            part = PartialAggregate()
            for site in (site for site in block if site in found):
                accumulate(part, found[site], weight)
            merge_partial(whole, part)
        return self._mean_of(whole, "average", weight)

    def note(self, key: str, value: object) -> None:
        """Write something that the server drew or found into the round's record."""
        self.notes[key] = value

    def _parts(
        self, action: str, send: Bundle, weight: str, failed: dict[str, str]
    ) -> Iterator[PartialAggregate]:
        """Yield the blocks' sums in their order, added up by the grid's workers or here."""
        blocks = self._blocks()
        if getattr(self.grid, "folds", False):
            asked = {
                (key := ",".join(block)): (
                    self.nodes[block[0]].id,
                    {GROUP_SIZE: key, WEIGHT: weight},
                )
                for block in blocks
            }
            for _, content in self._in_order(action, send, asked, failed):
                part = partial_of(content)
                self._check(part.failed)
                failed.update(part.failed)
                yield part
            return
        block_of = {site: block for block in blocks for site in block}
        asked = {site: (self.nodes[site].id, dict[str, str]()) for site in block_of}
        part, at, like = PartialAggregate(), blocks[0], None
        for site, content in self._in_order(action, send, asked, failed):
            if block_of[site] != at:
                yield part
                part, at = PartialAggregate(), block_of[site]
            reply = self._opened(site, content, send, failed)
            if reply is None:
                continue
            like = reply.arrays if like is None else like
            with self.meter.spent("aggregation"):
                wrong = accumulate(part, reply, weight, like)
            if wrong:
                self._fail(site, wrong, failed)
        yield part

    def _opened(
        self, site: str, content: RecordDict, send: Bundle, failed: dict[str, str]
    ) -> Reply | None:
        """Return what a site has answered; None of what cannot be read, which is its failure."""
        try:
            return arrays_and_numbers(content, send)
        except SiteFailedError as error:
            self._fail(site, str(error), failed)
            return None

    def _mean_of(self, whole: PartialAggregate, action: str, weight: str) -> Reply:
        if not whole.mean.total > 0:
            raise SiteFailedError(f"round {self.number}, {action}: no site has any {weight}")
        return Reply(whole.mean.value(), whole.numbers)

    def _blocks(self) -> list[tuple[str, ...]]:
        return groups_of_sites({site: node.images for site, node in self.nodes.items()})

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

    def _settle(
        self, action: str, failed: Mapping[str, str], kind: type[FedradError] = SiteFailedError
    ) -> None:
        self.missing.update(failed)
        answered = len(self.nodes) - len(failed)
        if failed and answered < self._needed:
            self._check(failed)
            told = by_reason(dict(sorted(failed.items())))
            # A full disk is no site's silence: whoever started the run can mend it and go on.
            kind = RunError if any(_is(RunError, why) for why in failed.values()) else kind
            # Of a site that came after the roll call, a refusal is first known in mid-run.
            mend = f"; {refusal_hint(answered)}" if failed.keys() & self.unasked.keys() else ""
            raise kind(
                f"round {self.number}, {action}: {answered} of {len(self.nodes)} sites answered, "
                f"the quorum is {self._needed} ({told}){mend}"
            )

    def _replies(
        self,
        action: str,
        send: Bundle,
        asked: Mapping[str, tuple[int, dict[str, str]]],
        failed: dict[str, str],
    ) -> Iterator[tuple[str, RecordDict | None]]:
        """Yield the replies as they come, None for each that failed or was too late."""
        riding = self.rider is not None and self.rider.attach(action, send)
        asks = action + PIGGYBACK if riding else action
        arrays = pack({**send, **self.common})
        self.traffic.down += num_bytes(send) * (len(self.nodes) - len(self.unasked))
        messages = [
            self.grid.create_message(
                self._content(arrays, asks, settings),
                _kind(action),
                node,
                str(self.number),
            )
            for node, settings in asked.values()
        ]
        waiting = dict(zip(self.grid.push_messages(messages), asked, strict=True))
        ends = time.monotonic() + self.deadline
        while waiting:
            pulled = list(self.grid.pull_messages(list(waiting)))
            for message in pulled:
                key = waiting.pop(message.metadata.reply_to_message_id, None)
                if key is None:
                    continue  # An answer to another question, or a second one to this.
                content = self._received(key, message, failed)
                if riding and self.rider is not None and content is not None:
                    content = self.rider.detach(key, content)
                yield key, content
            # As long as answers come, those that are here, or whose turn it is, are not late.
            if waiting and not pulled and time.monotonic() > ends:
                for key in sorted(waiting.values()):
                    self._fail(key, f"no answer within {self.deadline:.3g} s", failed)
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
        failed.update(dict.fromkeys(key.split(","), printable(reason)))

    @property
    def _needed(self) -> int:
        return self.quorum or len(self.nodes)

    def _check(self, failed: Mapping[str, str]) -> None:
        """Stop the arm at once if a site diverged and the quorum cannot be met without it.

        "Diverged" is one site's word: where the others are enough, they go on.
        """
        if len(self.nodes) - len(failed) >= self._needed:
            return
        for reason in failed.values():
            if _is(TrainingDivergedError, reason):
                raise TrainingDivergedError(reason.partition(": ")[2])


def _is(kind: type[FedradError], reason: str) -> bool:
    """Return whether a site's reason is an error of a kind."""
    return reason.partition(":")[0] == kind.__name__


def _kind(action: str) -> str:
    if action in _QUERIES:
        return "query"
    return "evaluate" if action in _EVALUATIONS else "train"

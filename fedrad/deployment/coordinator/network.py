"""Flower's Grid over a SuperLink: real sites, which may be slow, silent, or die at any moment.

A question is asked again when its site's SuperNode has started anew, since what that had taken in
is gone; the first answer counts, and later ones are never fetched. Answers stay on the SuperLink's
disk until it is their turn to be added up, so memory does not grow with the number of sites.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.run import Run

from fedrad.deployment.coordinator.node_status import NodeStatus
from fedrad.deployment.coordinator.pending_queries import MAX_CRASHES, MAX_LOSSES, PendingQuery
from fedrad.deployment.coordinator.superlink import RunLost, SuperLinkClient
from fedrad.deployment.coordinator.superlink_messages import (
    assemble_message,
    fetch_payload,
    poll_headers,
    push,
)
from fedrad.deployment.handshake import version_info
from fedrad.deployment.packed_arrays import Packer
from fedrad.errors import SiteFailedError
from fedrad.rounds.nodes import Node
from fedrad.rounds.records import config_of

__all__ = ["NetworkGrid"]

log = logging.getLogger(__name__)

_CRASHED = {ErrorCode.CLIENT_APP_CRASHED, ErrorCode.CLIENT_APP_RAISED_EXCEPTION}
_ASTRAY = {
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
}
"""Flower's own errors: the question or its answer is lost, the site has not said no."""

Check = Callable[[Message, Message], str | None]
"""(question, reply) -> what is wrong with the reply, or None."""
Limit = Callable[[Message], int]
"""question -> the bytes that its answer may have at most."""
OnLooked = Callable[[Mapping[int, float]], None]
"""Is told who is waited for: node -> seconds."""


class NetworkGrid(Grid):
    """A Grid over a SuperLink.

    Args:
        link: to the SuperLink; a run is open.
        deadline: seconds after which the exchange gives a question up.
        patience: seconds that a site may be away before its question is given up.
        check: looks at each reply before anybody else does.
        limit: says how large an answer may be.
        told: is told who is waited for.

    Attributes:
        sites: by name, as the roll call met them.
        unasked: node -> arm -> why it is not asked anything of that arm; "" stands for every arm.
        strangers: node -> the question by which it describes itself before it is asked more.
        introduce: takes such a description in, and returns why it cannot be used, or None.
        slow: a message costs seconds, so that two questions go in one where they can.
    """

    slow = True

    def __init__(
        self,
        link: SuperLinkClient,
        *,
        deadline: float,
        patience: float,
        check: Check,
        limit: Limit,
        told: OnLooked,
    ) -> None:
        self.sites: Mapping[str, Node] = {}
        self.unasked: Mapping[int, Mapping[str, str]] = {}
        self.strangers: Mapping[int, RecordDict] = {}
        self.introduce: Callable[[int, Message], str | None] = lambda node, description: None
        self._link = link
        self._deadline = deadline
        self._patience = patience
        self._check = check
        self._limit = limit
        self._told = told
        self._asked: dict[str, PendingQuery] = {}
        self._by_sent: dict[str, PendingQuery] = {}
        self._count = 0
        self._packer = Packer()
        self._where = NodeStatus(link)

    def set_run(self, run: Run) -> None:
        """Do nothing: the link holds the run."""

    @property
    def run(self) -> Run:
        """Return the open run."""
        return Run.create_empty(self._link.run_id)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a site, which also says which fedrad asks."""
        told = RecordDict(dict(content))
        told["config"] = ConfigRecord(
            {**content.config_records.get("config", {}), **version_info()}
        )
        return Message(told, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the registered sites' nodes, connected or not."""
        return sorted(self.look(0.0))

    def away(self, nodes: Iterable[int]) -> list[int]:
        """Return those of some nodes that were not connected at the last look."""
        return [node for node in nodes if not self._where.connected(node)]

    def look(self, age: float | None = None) -> dict[int, NodeInfo]:
        """Return the registered nodes, as they were not longer ago than `age` seconds (or 2)."""
        return self._where.look(age)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Ask; the numbers that are returned stay the same however often a question is repeated."""
        questions = []
        for message in messages:
            asked = self._new(message)
            if (first := self.strangers.get(asked.site)) is not None:
                asked.first = self._new(self.create_message(first, "query", asked.site, "0"))
            self._asked[asked.number] = asked
            questions.append(asked)
        self.look(0.0)
        self._send([asked for asked in questions if self._unasked(asked) is None])
        return [asked.number for asked in questions]

    def _new(self, message: Message) -> PendingQuery:
        self._count += 1
        head = message.metadata
        return PendingQuery(
            str(self._count),
            message.content,
            head.message_type,
            head.dst_node_id,
            head.group_id,
            time.monotonic(),
        )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the next reply in the order asked for, if it is here; late ones hold none up."""
        wanted = [self._asked[number] for number in message_ids if number in self._asked]
        for asked in [a for a in self._asked.values() if a not in wanted]:
            self._forget(asked)  # Nobody waits for it any more.
        self._told({a.site: time.monotonic() - a.since for a in wanted if a.reply is None})
        try:
            self._hear([asked.now for asked in wanted])
            self._ask_again([asked.now for asked in wanted])
            for asked in wanted:
                if message := self._answer(asked):
                    self._forget(asked)
                    return [message]
                if not self._late(asked):
                    break
        except RunLost:
            self._reopen()
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Ask, and return all replies that come in time."""
        numbers = list(self.push_messages(messages))
        ends = time.monotonic() + (self._deadline if timeout is None else timeout)
        replies: list[Message] = []
        while len(replies) < len(numbers) and time.monotonic() < ends:
            found = list(self.pull_messages([n for n in numbers if n in self._asked]))
            replies += found
            if not found:
                time.sleep(0.05)
        return replies

    def _send(self, asked_for: Sequence[PendingQuery]) -> None:
        questions = [asked.now for asked in asked_for]
        try:
            self._push(questions)
        except RunLost:
            self._reopen()
        except ObjectPushError:
            # The coordinator's server ended while it took them in, and the next one knows of none.
            for asked in questions:
                asked.lost = True

    def _push(self, questions: Sequence[PendingQuery]) -> None:
        """Send the questions as new messages."""
        messages = [
            asked.message(self._packer(asked.content), self._where.node(asked.site))
            for asked in questions
        ]
        if not messages:
            return
        for asked, sent in zip(questions, push(self._link, messages), strict=True):
            asked.lost, asked.stalled = False, False
            asked.activated = self._where.activated(asked.site)
            asked.sent.append(sent)
            self._by_sent[sent] = asked

    def _reopen(self) -> None:
        """Open another run, and ask in it whatever is still open."""
        log.info("the coordinator's server has ended the run; another one is opened")
        self._link.open()
        self._by_sent.clear()
        for asked in self._asked.values():
            asked.now.sent, asked.now.reply = [], None
        self._send([asked for asked in self._asked.values() if self._unasked(asked) is None])

    def _hear(self, wanted: Sequence[PendingQuery]) -> None:
        """Take the heads of answers that have come; their contents stay where they are."""
        # Of a site that is away nothing is asked: the SuperLink would drop the question.
        sent = [
            one
            for asked in wanted
            if not asked.complete and self._where.connected(asked.site)
            for one in asked.sent
        ]
        if not sent:
            return
        for answered, reply in poll_headers(self._link, sent):
            known = self._by_sent.pop(answered, None)
            if known is not None:
                known.sent.remove(answered)
                known.reply = reply

    def _ask_again(self, wanted: Sequence[PendingQuery]) -> None:
        """Ask those again whose question or answer was lost."""
        self.look()
        again = [
            asked
            for asked in wanted
            if self._where.connected(asked.site)
            and self._unasked(asked) is None
            and time.monotonic() >= asked.due
            and (
                asked.lost or (self._where.activated(asked.site) != asked.activated and asked.owed)
            )
        ]
        if again:
            log.info("%d sites are asked again", len(again))
            self._send(again)

    def _answer(self, asked: PendingQuery) -> Message | None:
        if (reason := self._unasked(asked)) is not None:
            return asked.failed(reason)
        if asked.first is not None:
            return self._introduced(asked, asked.first)
        try:
            if (message := self._arrived(asked)) is not None:
                return message
        except SiteFailedError as error:
            return asked.failed(str(error))
        away = time.monotonic() - asked.since
        if not self._where.connected(asked.site) and away > self._patience:
            return asked.failed(f"is not connected; it was waited for for {away:.0f} s")
        return None

    def _introduced(self, asked: PendingQuery, first: PendingQuery) -> Message | None:
        """Ask what was to be asked, once the site has described itself; return why it cannot be."""
        description = self._answer(first)
        if description is None:
            return None
        asked.first = None
        wrong = (
            description.error.reason
            if description.has_error()
            else self.introduce(asked.site, description)
        )
        if wrong:
            return asked.failed(f"when it came: {wrong}")
        self.strangers = {n: q for n, q in self.strangers.items() if n != asked.site}
        if self._unasked(asked) is None:
            self._send([asked])
        return None

    def _arrived(self, asked: PendingQuery) -> Message | None:
        """Return the answer, looked through, if all of it is here.

        Raises:
            SiteFailedError: it cannot be read, or is not what was asked for.
        """
        if asked.reply is None:
            return None
        # Bytes that a site made: never so many that they fill this machine's memory.
        most = self._limit(asked.question())
        fetch_payload(self._link, asked, asked.reply, most)
        if asked.reply is None or not asked.complete:
            return self._given_up(asked)
        return self._judged(asked, assemble_message(self._link, asked, asked.reply, most))

    def _judged(self, asked: PendingQuery, message: Message) -> Message | None:
        if message.has_error() and message.error.code in _CRASHED | _ASTRAY:
            asked.crashes += message.error.code in _CRASHED
            asked.astray()
            return self._given_up(asked)
        if message.has_error():
            return asked.said(message.error)
        if wrong := self._check(asked.question(), message):
            return asked.failed(wrong)
        message.metadata.__dict__["_reply_to_message_id"] = asked.number
        return message

    def _given_up(self, asked: PendingQuery) -> Message | None:
        """Return that a question is given up, if it was lost, or died of, too often."""
        if asked.crashes >= MAX_CRASHES:
            return asked.failed(f"its process died {MAX_CRASHES} times of this question")
        if asked.losses >= MAX_LOSSES:
            return asked.failed(f"its answer went astray {MAX_LOSSES} times")
        return None

    def _unasked(self, asked: PendingQuery) -> str | None:
        """Return why a site is not asked at all, or None."""
        refused = self.unasked.get(asked.site, {})
        return refused.get("") or refused.get(str(config_of(asked.content).get("arm", "")))

    def _late(self, asked: PendingQuery) -> bool:
        """Return whether others need not wait for this one's turn any longer."""
        waited = time.monotonic() - asked.since
        return waited > self._deadline / 2 or not self._where.connected(asked.site)

    def _forget(self, asked: PendingQuery) -> None:
        del self._asked[asked.number]
        for sent in (*asked.sent, *asked.now.sent):
            self._by_sent.pop(sent, None)

"""Questions to sites on their way, and what is known of the answers."""

import time
from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict

from fedrad.core.printable import printable
from fedrad.errors import RunError

__all__ = ["MAX_CRASHES", "MAX_LOSSES", "PendingQuery", "ReplyHeader"]

MAX_CRASHES = 3
"""A question that so many processes of a site died of is given up."""
MAX_LOSSES = 20
"""A question whose answer went astray so often is given up."""
_PAUSES_S = (0.1, 30.0)
"""Before a lost question is asked again: after the first loss, and at most; doubled each time."""
_SITE_SAID, _SITE_FAILED = 100, 102
"""Codes of errors: in a site's own words, and what the coordinator found out."""


@dataclass(frozen=True)
class ReplyHeader:
    """The head of an answer.

    Args:
        id: Flower's.
        parts: names of the parts of its content; equal names are equal contents.
    """

    id: str
    parts: tuple[str, ...]


@dataclass(eq=False)
class PendingQuery:
    """A question on its way.

    Args:
        number: what the exchange knows it by, however often it is repeated.
        content, kind, site, group: of its message: records, type, node, round.
        since: when it was first asked, in seconds of the monotonic clock.
        sent: Flower's ids of the messages that asked it, the newest last.
        activated: when the node was last activated, as of the newest message.
        lost: the question or its answer went astray; it is asked again.
        losses: how often it or its answer went astray.
        due: when it may be asked again, in seconds of the monotonic clock.
        crashes: how often the site's process died of it.
        reply: the newest answer's head.
        parts: of the answer's content, as far as they were fetched.
        stalled: the answer's content is on its way.
        first: what must be answered before this is asked at all, until it is.
    """

    number: str
    content: RecordDict
    kind: str
    site: int
    group: str
    since: float
    sent: list[str] = field(default_factory=list)
    activated: str = ""
    lost: bool = False
    losses: int = 0
    due: float = 0.0
    crashes: int = 0
    reply: ReplyHeader | None = None
    parts: dict[str, bytes] = field(default_factory=dict)
    stalled: bool = False
    first: "PendingQuery | None" = None

    def message(self, content: RecordDict, node: int) -> Message:
        """Return a new message that asks the question, with the content as it is to cross."""
        return Message(content, node, self.kind, group_id=self.group)

    def question(self) -> Message:
        """Return the question as the exchange knows it."""
        question = self.message(self.content, self.site)
        question.metadata.__dict__["_message_id"] = self.number
        return question

    def astray(self) -> None:
        """Note that the answer is lost; who loses many is asked again less and less often."""
        self.reply, self.lost, self.parts = None, True, {}
        self.losses += 1
        first, most = _PAUSES_S
        # The first times at once: whoever was away is back. A site that always says so is slowed.
        pause = min(first * 2**self.losses, most) if self.losses > MAX_CRASHES else 0.0
        self.due = time.monotonic() + pause

    def failed(self, reason: str) -> Message:
        """Return the answer that stands for a site's failure."""
        return Message(Error(_SITE_FAILED, printable(reason)), reply_to=self.question())

    def said(self, error: Error) -> Message:
        """Return the answer of a site that says itself that it cannot do what was asked."""
        reason = printable(error.reason or "unknown error")
        if reason.startswith(RunError.__name__):
            # On this machine it would end the run; what a site's disk is like ends no other's.
            reason = f"at the site, {reason}"
        return Message(Error(_SITE_SAID, reason), reply_to=self.question())

    @property
    def now(self) -> "PendingQuery":
        """Return the question that is on its way now: this one, or what comes first."""
        return self if self.first is None else self.first

    @property
    def owed(self) -> bool:
        """Return whether the site still owes an answer, or a part of it."""
        return self.reply is None or self.stalled

    @property
    def complete(self) -> bool:
        """Return whether the whole answer has been fetched."""
        return self.reply is not None and all(name in self.parts for name in self.reply.parts)

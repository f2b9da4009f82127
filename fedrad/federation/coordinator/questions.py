"""Questions to sites on their way, and what is known of the answers."""

from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict

__all__ = ["CRASHES", "Asked", "Reply"]

CRASHES = 3
"""A question that so many processes of a site died of is given up."""
_SITE_FAILED = 102


@dataclass(frozen=True)
class Reply:
    """The head of an answer.

    Args:
        id: Flower's.
        parts: names of the parts of its content; equal names are equal contents.
    """

    id: str
    parts: tuple[str, ...]


@dataclass(eq=False)
class Asked:
    """A question on its way.

    Args:
        number: what the exchange knows it by, however often it is repeated.
        content, kind, site, group: of its message: records, type, node, round.
        since: when it was first asked, in seconds of the monotonic clock.
        sent: Flower's ids of the messages that asked it, the newest last.
        activated: when the node was last activated, as of the newest message.
        lost: the question or its answer went astray; it is asked again.
        crashes: how often the site's process died of it.
        reply: the newest answer's head.
        parts: of the answer's content, as far as they were fetched.
        stalled: the answer's content is on its way.
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
    crashes: int = 0
    reply: Reply | None = None
    parts: dict[str, bytes] = field(default_factory=dict)
    stalled: bool = False

    def message(self, content: RecordDict) -> Message:
        """Return a new message that asks the question, with the content as it is to cross."""
        return Message(content, self.site, self.kind, group_id=self.group)

    def question(self) -> Message:
        """Return the question as the exchange knows it."""
        question = self.message(self.content)
        question.metadata.__dict__["_message_id"] = self.number
        return question

    def failed(self, reason: str) -> Message:
        """Return the answer that stands for a site's failure."""
        return Message(Error(_SITE_FAILED, reason), reply_to=self.question())

    @property
    def complete(self) -> bool:
        """Return whether the whole answer has been fetched."""
        return self.reply is not None and all(name in self.parts for name in self.reply.parts)

"""What Flower's Grids over processes have in common: a queue of messages that processes take.

Names and counts of sites are asked of this process, which has the data, and streams are run in
it; all else waits until a worker is free.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

from flwr.app import Message

from fedrad.rounds.grid_wrapper import GridWrapper
from fedrad.rounds.site_streams import FrameStreams
from fedrad.simulation.in_process import InProcessGrid, ask_for_names
from fedrad.simulation.message_queue import MessageQueue

__all__ = ["QueuedGrid"]


class QueuedGrid(GridWrapper):
    """A Grid whose messages wait for processes that run blocks of sites.

    Args:
        inner: the same sites in this process.
    """

    folds = True

    def __init__(self, inner: InProcessGrid) -> None:
        super().__init__(inner)
        self._inner = inner
        self._waiting = MessageQueue()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages, in the order in which workers take them."""
        return self._waiting.push(messages)

    @abstractmethod
    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Wait a second at most for an answer, and return all answers that were asked for."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return all replies, in order of arrival."""
        messages = list(messages)
        if ask_for_names(messages):
            return self._inner.send_and_receive(messages)
        return list(self._replies(messages))

    def streams(
        self, messages: Mapping[str, Message], *, deadline: float
    ) -> AbstractContextManager[FrameStreams]:
        """Open streams; sites and server take turns in this process, and workers have no part."""
        return self._inner.streams(messages, deadline=deadline)

    def _replies(self, messages: Iterable[Message]) -> Iterator[Message]:
        waiting = set(self.push_messages(messages))
        while waiting:
            for message in self.pull_messages(waiting):
                waiting.discard(message.metadata.reply_to_message_id)
                yield message

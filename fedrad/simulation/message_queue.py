"""Messages that wait for a worker, and what is known of those that killed one."""

from collections import deque
from collections.abc import Container, Iterable, Sequence

from flwr.app import Message

from fedrad.core.state import num_bytes
from fedrad.rounds.records import arrays_in, bundle_of

__all__ = ["MAX_WORKER_CRASHES", "MessageQueue", "arrays_of"]

_BATCH = 16
"""So many messages go to a worker at once, at most."""
_SMALL = 1_000_000
"""Messages go together while their arrays, as long as the longest answers, have fewer bytes."""
MAX_WORKER_CRASHES = 3
"""A message that so many workers died of is given up: the next one would die of it too."""


class MessageQueue:
    """A queue of messages by their numbers, from which those go together that may."""

    def __init__(self) -> None:
        self._queue: deque[str] = deque()
        self._messages: dict[str, Message] = {}
        self._deaths: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __getitem__(self, number: str) -> Message:
        return self._messages[number]

    def push(self, messages: Iterable[Message]) -> list[str]:
        """Number messages, and let them wait in their order."""
        ids = []
        for message in messages:
            self._count += 1
            message.metadata.__dict__["_message_id"] = number = str(self._count)
            self._messages[number] = message
            ids.append(number)
        self._queue.extend(ids)
        return ids

    def drop_old(self, wanted: Container[str]) -> None:
        """Forget messages at the head of the queue whose answers nobody waits for any more."""
        while self._queue and self._queue[0] not in wanted:
            self._messages.pop(self._queue.popleft())

    def head(self) -> Message:
        """Return the next message, which stays in the queue."""
        return self._messages[self._queue[0]]

    def next(self, workers: int | None = None) -> tuple[str, ...]:
        """Take the next message from the queue, and while many wait those that may go with it.

        Args:
            workers: among which all that wait is shared out; None takes one message.
        """
        numbers = [self._queue.popleft()]
        most = min(_BATCH, len(self._queue) // (2 * workers)) if workers else 1
        while len(numbers) < most and self._go_together(numbers[0], self._queue[0]):
            numbers.append(self._queue.popleft())
        return tuple(numbers)

    def pop(self, number: str) -> Message:
        """Return a message that was answered, and forget it."""
        return self._messages.pop(number)

    def died(self, batches: Sequence[tuple[str, ...]]) -> list[str]:
        """Let messages of a dead worker wait again, first of all, but for those to be given up.

        Args:
            batches: that it had; it died of the first, the others were waiting behind that.

        Returns:
            The numbers of messages that are given up.
        """
        for number in batches[0]:
            self._deaths[number] = self._deaths.get(number, 0) + 1
        numbers = [number for batch in batches for number in batch]
        given_up = [
            number for number in numbers if self._deaths.get(number, 0) >= MAX_WORKER_CRASHES
        ]
        self.again([number for number in numbers if number not in given_up])
        return given_up

    def again(self, numbers: Sequence[str]) -> None:
        """Let messages that were taken wait again, first of all."""
        self._queue.extendleft(reversed(numbers))

    def _go_together(self, one: str, other: str) -> bool:
        """Return whether both have the same arrays, and their answers are no burden together.

        One of a batch that a worker died of goes alone, to find out which it was.
        """
        if one in self._deaths or other in self._deaths:
            return False
        if arrays_of(self[one]) != arrays_of(self[other]):
            return False
        return num_bytes(bundle_of(self[one].content)) < _SMALL


def arrays_of(message: Message) -> tuple[int, ...]:
    """Return what tells a message's arrays from others; those of one exchange are the same."""
    return tuple(id(record) for record in arrays_in(message.content).values())

"""Flower's Grid in one process: messages by reference, no serialising, no server.

A message is worked off when its reply is pulled, one reply a pull, or one for each site that is
trained at once, so that the memory in use does not grow with the number of sites.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

# Flower makes messages only inside a task of its own runtimes; this is its one internal name here.
from flwr.supercore.task_identity import TaskIdentity

from fedrad.core.timing import PhaseTimer
from fedrad.errors import SiteFailedError
from fedrad.rounds.partial_aggregation import (
    GROUP_SIZE,
    WEIGHT,
    PartialAggregate,
    accumulate,
    pack_partial,
)
from fedrad.rounds.records import bundle_of, config_of
from fedrad.rounds.replies import arrays_and_numbers
from fedrad.rounds.site_streams import CalledStreams, ClientCoroutine, StreamHandlerFactory
from fedrad.rounds.worker_time import WorkerTime
from fedrad.simulation.batched_training import BatchedTrainer

__all__ = ["InProcessGrid", "ask_for_names"]

log = logging.getLogger(__name__)
_RUN = _SERVER = 1
_CLIENT_APP_FAILED = 2


class InProcessGrid(Grid):
    """A Grid whose nodes are called as functions.

    Args:
        app: what every node runs.
        sites: a site's name -> the folder where it keeps its memory.
        meter: what the app tells its time to.
        door: opens a node's streams; without one there are none.
        together: runs several messages at once; the app asks it to train.
    """

    in_turn = True

    def __init__(
        self,
        app: ClientApp,
        sites: Mapping[str, Path],
        meter: PhaseTimer | None = None,
        door: StreamHandlerFactory | None = None,
        together: BatchedTrainer | None = None,
    ) -> None:
        self.meter = meter or PhaseTimer()
        self.spent = WorkerTime([self.meter.seconds], self.meter)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN, _SERVER, _RUN
        self._app = app
        self._door = door
        self._together = together
        self._contexts = {
            node: Context(
                run_id=_RUN,
                node_id=node,
                node_config={"site": site, "state-dir": str(folder)},
                state=RecordDict(),
                run_config={},
            )
            for node, (site, folder) in enumerate(sorted(sites.items()), start=_SERVER + 1)
        }
        self._nodes = dict(zip(sorted(sites), self._contexts, strict=True))
        self._waiting: dict[str, Message] = {}
        self._ids = itertools.count(1)

    def set_run(self, run: Run) -> None:
        """Do nothing: this grid has one run."""

    @property
    def run(self) -> Run:
        """Return the only run."""
        return Run.create_empty(_RUN)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, in sorted order of their sites' names."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages in; they are worked off as their replies are pulled."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = number = f"{next(self._ids)}"
            self._waiting[number] = message
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Work off the first waiting message of those asked for, or the first few at once."""
        numbers = [number for number in message_ids if number in self._waiting]
        if not numbers:
            return []
        if self._together is None:
            return [self.answer(self._waiting.pop(numbers[0]))]
        most = self._together.most(self._waiting[numbers[0]])
        messages = [self._waiting[number] for number in numbers[:most]]
        replies = self._together.answers(messages, self.answer)
        for reply in replies:
            del self._waiting[reply.metadata.reply_to_message_id]
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return all replies, in the order of the messages."""
        return list(self._all(list(self.push_messages(messages))))

    def _all(self, ids: list[str]) -> Iterator[Message]:
        for number in ids:
            yield from self.pull_messages([number])

    @contextmanager
    def streams(
        self, messages: Mapping[str, Message], *, deadline: float
    ) -> Iterator[CalledStreams]:
        """Open streams that are calls in this process, which no deadline interrupts."""
        halves = {site: self.half(message) for site, message in messages.items()}
        channels = CalledStreams(halves)
        try:
            yield channels
        finally:
            channels.close()

    def half(self, message: Message) -> ClientCoroutine:
        """Return a node's half of the stream that a message opens."""
        if self._door is None:
            raise SiteFailedError("this runtime opens no streams, which split learning needs")
        return self._door(message, self._contexts[message.metadata.dst_node_id])

    def answer(self, message: Message) -> Message:
        """Call the node that a message is for, and return its reply."""
        context = self._contexts[message.metadata.dst_node_id]
        try:
            with self.meter.spent("messages"):
                return self._app(message, context)
        except Exception as error:
            # What Flower's own runtimes do, but for the text, which could hold a path or a name.
            log.exception("the client app failed at %s", context.node_config["site"])
            return Message(Error(_CLIENT_APP_FAILED, type(error).__name__), reply_to=message)

    def answer_group(self, content: RecordDict, kind: str, node: int, group: str) -> Message:
        """Run a message to a node, or to the block of sites that its settings name."""
        question = self.create_message(content, kind, node, group)
        config = config_of(content)
        if GROUP_SIZE not in config:
            return self.answer(question)
        part, sent = PartialAggregate(), bundle_of(content)
        for site in str(config[GROUP_SIZE]).split(","):
            reply = self.answer(self.create_message(content, kind, self._nodes[site], group))
            if reply.has_error():
                part.failed[site] = reply.error.reason or "unknown error"
                continue
            try:
                found = arrays_and_numbers(reply.content, sent)
            except SiteFailedError as error:
                part.failed[site] = str(error)
                continue
            with self.meter.spent("aggregation"):
                wrong = accumulate(part, found, str(config[WEIGHT]))
            if wrong:
                part.failed[site] = wrong
        return Message(pack_partial(part), reply_to=question)


def ask_for_names(messages: Sequence[Message]) -> bool:
    """Return whether all messages ask for names and counts, which a process with the data knows."""
    return all(config_of(message.content).get("action") == "describe" for message in messages)

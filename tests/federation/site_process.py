"""Sites as processes of their own, reached by pipes instead of Flower's servers.

Messages go through the pipes by value; streams go over real gRPC. A process can be killed.
"""

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import message_pb2
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Makes = Callable[[], ClientApp]


class ProcessesGrid(Grid):
    """A Grid whose nodes are processes; one that died is started again when it is next asked."""

    def __init__(self, makes: Makes, sites: dict[str, Path]) -> None:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        self._makes = makes
        self._sites = dict(enumerate(sorted(sites.items()), start=2))
        self._processes: dict[int, tuple[Any, Connection]] = {}
        self._asked: dict[str, Message] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def __enter__(self) -> "ProcessesGrid":
        """Do nothing more: processes start when they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes."""
        for process, _pipe in self._processes.values():
            process.kill()
            process.join()

    def kill(self, site: str) -> None:
        """Kill a site's process with -9."""
        node = next(node for node, (name, _) in self._sites.items() if name == site)
        self._processes[node][0].kill()

    def set_run(self, run: Run) -> None:
        """Do nothing: this grid has one run."""

    @property
    def run(self) -> Run:
        """Return the only run."""
        return Run.create_empty(1)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl=None
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, in sorted order of their sites' names."""
        return list(self._sites)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages down the pipes."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        message.metadata.__dict__["_message_id"] = number = f"{next(self._ids)}"
        self._asked[number] = message
        self._pipe(message.metadata.dst_node_id).send((number, _bytes(message)))
        return number

    def _pipe(self, node: int) -> Connection:
        if node not in self._processes or not self._processes[node][0].is_alive():
            ours, theirs = multiprocessing.Pipe()
            # Imports torch once; a fork of this process itself would inherit gRPC's threads' locks.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["fedrad.rounds.client_app"])
            site, folder = self._sites[node]
            process = context.Process(
                target=_serve,
                args=(self._makes, node, site, folder, theirs, os.getpid()),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._processes[node] = process, ours
        return self._processes[node][1]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come, and an error for each node that died."""
        with self._lock:
            wanted, found = set(message_ids), []
            for process, pipe in list(self._processes.values()):
                try:
                    while pipe.poll(0.005):
                        number, reply = pipe.recv()
                        self._asked.pop(number)
                        found += [_message(reply)] if number in wanted else []
                except (EOFError, ConnectionResetError):
                    process.join()
            return found + self._lost(wanted)

    def _lost(self, wanted: set[str]) -> list[Message]:
        """As the SuperNode answers, when its worker's process has died."""
        found = []
        for number in sorted(wanted & self._asked.keys()):
            message = self._asked[number]
            if not self._processes[message.metadata.dst_node_id][0].is_alive():
                self._asked.pop(number)
                found.append(
                    Message(
                        Error(ErrorCode.CLIENT_APP_CRASHED, "the site's process died"),
                        reply_to=message,
                    )
                )
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout=None) -> Iterable[Message]:
        """Send messages and return all replies."""
        waiting, found = set(self.push_messages(messages)), []
        while waiting:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                found.append(reply)
        return found


def _serve(
    makes: Makes, node: int, site: str, folder: Path, pipe: Connection, coordinator: int
) -> None:
    """A site's process: answers one message after the other."""
    threading.Thread(target=_end_with, args=(coordinator,), daemon=True).start()
    torch.set_num_threads(1)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, node, 1
    app = makes()
    context = Context(
        run_id=1,
        node_id=node,
        node_config={"site": site, "state-dir": str(folder)},
        state=RecordDict(),
        run_config={},
    )
    while True:
        number, message = pipe.recv()
        pipe.send((number, _bytes(app(_message(message), context))))


def _bytes(message: Message) -> bytes:
    """A message as Flower's servers carry it."""
    return message_to_proto(message).SerializeToString()


def _message(raw: bytes) -> Message:
    return message_from_proto(message_pb2.Message.FromString(raw))


def _end_with(process: int) -> None:
    """End this process when another has: a test must leave nothing behind."""
    while Path(f"/proc/{process}").exists():
        time.sleep(0.2)
    os._exit(1)

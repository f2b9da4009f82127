"""How a site's worker takes a message from its SuperNode, which may have lost it on the way.

A run that is ended while its message is on its way leaves Flower's SuperNode with a task whose
message will never be whole. The SuperNode takes in one message at a time: where another task waits,
the message before it has been given up.
"""

import time
from collections.abc import Callable
from typing import Any

from flwr.app import Context, Message
from flwr.common.serde import context_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullTaskInputRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["Superseded", "pull_task"]

_POLL_S = 0.1


class Superseded(Exception):
    """The message will never be whole: its run was ended."""


def pull_task(client: Any, superseded: Callable[[], bool]) -> tuple[Message, Context]:
    """Return a task's message and context; the bundle that comes with them is not looked at.

    Args:
        client: with the task's token.
        superseded: whether the SuperNode has gone on to another message.

    Raises:
        Superseded: the message will never be whole.
    """
    task = client.PullTaskInput(PullTaskInputRequest())
    context = context_from_proto(task.context)
    # Flower makes messages only inside a task of its own runtimes; see inprocess.py.
    TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
    TaskIdentity.node_id = context.node_id
    trees = client.PullMessages(PullAppMessagesRequest()).message_object_trees
    if not trees:
        raise Superseded
    tree, node = trees[0], Node(node_id=context.node_id)
    parts = {}
    for name in dict.fromkeys(part.object_id for part in iterate_object_tree(tree)):
        request = PullObjectRequest(node=node, run_id=context.run_id, object_id=name)
        while not (answer := client.PullObject(request)).object_available:
            # A large message comes in bit by bit; a lost one never does.
            if superseded():
                raise Superseded
            time.sleep(_POLL_S)
        parts[name] = answer.object_content
    client.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(
            node=node, run_id=context.run_id, message_object_id=tree.object_id
        )
    )
    message = inflate_object_from_contents(tree.object_id, parts)
    assert isinstance(message, Message)
    # Its own id is not among what crossed.
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message, context

"""A run's messages to and from the SuperLink: heads first, contents when they are wanted."""

from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, push_objects

from fedrad.federation.coordinator.questions import Asked, Reply
from fedrad.federation.coordinator.superlink import Link
from fedrad.federation.wire import unpacked

__all__ = ["fetch", "heads", "open_up", "send"]

_SERVER = Node(node_id=SUPERLINK_NODE_ID)


def send(link: Link, messages: Sequence[Message]) -> list[str]:
    """Send messages in one go, so that arrays that they share cross once; return Flower's ids."""
    runtime = link.runtime

    def push(request: PushObjectRequest) -> PushObjectResponse:
        answer: PushObjectResponse = link.call(lambda: runtime.PushObject(request))
        return answer

    with no_object_id_recompute():
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
        request = PushAppMessagesRequest(
            messages_list=[message_to_proto(remove_content_from_message(m)) for m in messages],
            message_object_trees=[get_object_tree(m) for m in messages],
        )
        pushed = link.call(lambda: runtime.PushMessages(request))
        push_objects(
            {name: part for m in messages for name, part in get_all_nested_objects(m).items()},
            make_push_object_fn_protobuf(push, _SERVER, link.run_id, pushed.session_id),
            object_ids_to_push=set(pushed.objects_to_push),
        )
    return list(pushed.message_ids)


def heads(link: Link, sent: Sequence[str]) -> Iterator[tuple[str, Reply]]:
    """Yield the id of each message that was answered, and the head of the answer; each once."""
    request = PullAppMessagesRequest(message_ids=sent)
    pulled = link.call(lambda: link.runtime.PullMessages(request))
    for head, tree in zip(pulled.messages_list, pulled.message_object_trees, strict=True):
        parts = tuple(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
        answered = message_from_proto(head).metadata.reply_to_message_id
        yield answered, Reply(tree.object_id, parts)


def fetch(link: Link, asked: Asked, reply: Reply) -> None:
    """Fetch what is there of an answer's content, and note what is lost or still on its way."""
    for name in reply.parts:
        if name in asked.parts:
            continue
        pulled = _part(link, name)
        if not pulled.object_found:
            asked.reply, asked.lost = None, True
        asked.stalled = not pulled.object_available
        if asked.stalled:
            return
        asked.parts[name] = pulled.object_content


def _part(link: Link, name: str) -> PullObjectResponse:
    request = PullObjectRequest(node=_SERVER, run_id=link.run_id, object_id=name)
    part: PullObjectResponse = link.call(lambda: link.runtime.PullObject(request))
    return part


def open_up(link: Link, asked: Asked, reply: Reply) -> Message:
    """Return an answer whose content has been fetched, and let the SuperLink forget it.

    Raises:
        SiteFailed: its arrays cannot be read.
    """
    request = ConfirmMessageReceivedRequest(
        node=_SERVER, run_id=link.run_id, message_object_id=reply.id
    )
    link.call(lambda: link.runtime.ConfirmMessageReceived(request))
    message = inflate_object_from_contents(reply.id, asked.parts)
    assert isinstance(message, Message)
    if message.has_content():
        message.content = unpacked(message.content)
    return message

"""A run's messages to and from the SuperLink: heads first, contents when they are wanted.

An answer is a site's own bytes until it has been read: how large it is is known before memory is
taken for it, and whatever goes wrong in reading it is that site's failure and nobody else's.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
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
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, push_objects

from fedrad.deployment.coordinator.pending_queries import PendingQuery, ReplyHeader
from fedrad.deployment.coordinator.superlink import SuperLinkClient
from fedrad.deployment.packed_arrays import unpack_arrays
from fedrad.errors import SiteFailedError

__all__ = ["assemble_message", "fetch_payload", "inflated_size", "poll_headers", "push"]

log = logging.getLogger(__name__)

_SERVER = Node(node_id=SUPERLINK_NODE_ID)
_NAMING: Mapping[str, type[ArrayRecord] | type[RecordDict]] = {
    kind.__qualname__: kind for kind in (ArrayRecord, RecordDict)
}
"""Flower's objects whose bodies say name -> child, any child several times."""
_PARTS, _LEAST_PART = 64, 1 << 16
"""Parts of an answer that are few, and bytes that one more of them is allowed for."""


def push(link: SuperLinkClient, messages: Sequence[Message]) -> list[str]:
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


def poll_headers(link: SuperLinkClient, sent: Sequence[str]) -> Iterator[tuple[str, ReplyHeader]]:
    """Yield the id of each message that was answered, and the head of the answer; each once."""
    request = PullAppMessagesRequest(message_ids=sent)
    pulled = link.call(lambda: link.runtime.PullMessages(request))
    for head, tree in zip(pulled.messages_list, pulled.message_object_trees, strict=True):
        parts = tuple(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
        # The head is not read any further: whatever else it holds is the site's own word.
        yield head.metadata.reply_to_message_id, ReplyHeader(tree.object_id, parts)


def fetch_payload(
    link: SuperLinkClient, asked: PendingQuery, reply: ReplyHeader, most: int
) -> None:
    """Fetch what is there of an answer's content, and note what is lost or still on its way.

    Raises:
        SiteFailedError: it has more than so many bytes, or far more parts than these would need.
    """
    if len(reply.parts) > _PARTS + most // _LEAST_PART:
        raise SiteFailedError(f"its answer is in {len(reply.parts)} parts, which is too many")
    for name in reply.parts:
        if name in asked.parts:
            continue
        pulled = _part(link, name)
        if not pulled.object_found:
            asked.astray()
            return
        asked.stalled = not pulled.object_available
        if asked.stalled:
            return
        asked.parts[name] = pulled.object_content
        if sum(map(len, asked.parts.values())) > most:
            raise SiteFailedError(f"its answer is larger than the {most} bytes that were asked for")


def _part(link: SuperLinkClient, name: str) -> PullObjectResponse:
    request = PullObjectRequest(node=_SERVER, run_id=link.run_id, object_id=name)
    part: PullObjectResponse = link.call(lambda: link.runtime.PullObject(request))
    return part


def assemble_message(
    link: SuperLinkClient, asked: PendingQuery, reply: ReplyHeader, most: int
) -> Message:
    """Return an answer whose content has been fetched, and let the SuperLink forget it.

    Raises:
        SiteFailedError: it cannot be read, or would take more than so many bytes of memory.
    """
    request = ConfirmMessageReceivedRequest(
        node=_SERVER, run_id=link.run_id, message_object_id=reply.id
    )
    link.call(lambda: link.runtime.ConfirmMessageReceived(request))
    try:
        if inflated_size(reply.id, asked.parts) > most:
            raise SiteFailedError(f"its answer unpacks to more than the {most} bytes asked for")
        message = inflate_object_from_contents(reply.id, asked.parts)
        if not isinstance(message, Message):
            raise SiteFailedError(f"its answer cannot be read (it is a {type(message).__name__})")
        if message.has_content():
            message.content = unpack_arrays(message.content)
        return message
    except SiteFailedError:
        raise
    except Exception as error:
        # Its bytes are the site's: whatever they make Flower stumble over is that site's failure.
        log.info("an answer cannot be read", exc_info=error)
        raise SiteFailedError(f"its answer cannot be read ({type(error).__name__})") from None


def inflated_size(name: str, parts: Mapping[str, bytes]) -> int:
    """Return the bytes that a Flower object takes once it is put together.

    An object names its children as often as it likes, so a few kB may unpack to a terabyte.
    """
    known: dict[str, int] = {}

    def size(name: str) -> int:
        if name not in known:
            known[name] = _own_size(parts[name], size)
        return known[name]

    return size(name)


def _own_size(content: bytes, size: Callable[[str], int]) -> int:
    kind, children, _ = get_object_head_values_from_object_content(content)
    if kind == Array.__qualname__:
        indices = json.loads(get_object_body(content, Array))["arraychunk_ids"]
        return len(content) + sum(size(children[index]) for index in indices)
    if kind in _NAMING:
        named = json.loads(get_object_body(content, _NAMING[kind]))
        return len(content) + sum(size(child) for child in named.values())
    return len(content) + sum(map(size, children))

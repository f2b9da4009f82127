"""A SuperLink's memory of messages, byte for byte as Flower keeps them; the seam of these attacks.

All above it is the product's own: how an answer is fetched, unpacked, checked and added up. What a
hostile site could put on the wire, a test puts here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.proto.message_pb2 import Message as Proto
from flwr.proto.message_pb2 import Metadata, ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents


@dataclass
class Letter:
    """An answer as it lies at the SuperLink.

    Args:
        replies_to: the id of the message that it says it answers.
        id: of its own object.
        parts: object's id -> bytes; None is never there, and what is missing is lost.
        tree: the ids that are to be fetched, in their order.
    """

    replies_to: str
    id: str
    parts: dict[str, bytes | None]
    tree: list[str]


Answer = Callable[[int, Message], list[Letter]]
"""(a site's node, the question) -> what it puts on the wire."""


def letter(question: Message, content: RecordDict | Error) -> Letter:
    """An honest answer."""
    reply = Message(content, reply_to=question)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    objects = get_all_nested_objects(reply)
    return Letter(
        question.metadata.message_id,
        reply.object_id,
        {name: part.deflate() for name, part in objects.items()},
        [part.object_id for part in iterate_object_tree(get_object_tree(reply))],
    )


@dataclass
class Postbox:
    """Stands for the link to a SuperLink, at which every site answers at once."""

    names: dict[int, str]
    answer: Answer
    run_id: int = 1
    asked: int = 0
    _objects: dict[str, bytes] = field(default_factory=dict)
    _letters: list[Letter] = field(default_factory=list)
    _heads: dict[str, Any] = field(default_factory=dict)

    @property
    def runtime(self) -> "Postbox":
        """The runtime's calls are this object's own."""
        return self

    def call(self, ask: Callable[[], Any]) -> Any:
        """Call."""
        return ask()

    def open(self, text: str = "") -> None:
        """Open a run."""

    def nodes(self) -> list[SimpleNamespace]:
        """All sites are there."""
        return [
            SimpleNamespace(node_id=node, name=name, status="online", last_activated_at="1")
            for node, name in self.names.items()
        ]

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:
        """Take in the heads of questions."""
        ids = []
        for head, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            self._heads[tree.object_id] = head
            ids.append(tree.object_id)
        wanted = [
            part.object_id
            for tree in request.message_object_trees
            for part in iterate_object_tree(tree)
        ]
        return PushAppMessagesResponse(
            message_ids=ids, objects_to_push=set(wanted) - self._objects.keys(), session_id="1"
        )

    def PushObject(self, request: Any) -> SimpleNamespace:
        """Take in a part of a question."""
        self._objects[request.object_id] = request.object_content
        return SimpleNamespace(stored=True)

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        """Let the sites answer, and return the heads of their answers."""
        told = PullAppMessagesResponse()
        for name in request.message_ids:
            if (head := self._heads.pop(name, None)) is not None:
                self.asked += 1
                question = inflate_object_from_contents(
                    name, dict(self._objects), keep_object_contents=True
                )
                assert isinstance(question, Message)
                question.metadata.__dict__["_message_id"] = name
                self._letters += self.answer(head.metadata.dst_node_id, question)
        for one in self._letters:
            if one.replies_to in request.message_ids:
                self._put(told, one)
        self._letters = [one for one in self._letters if one.replies_to not in request.message_ids]
        return told

    def _put(self, told: PullAppMessagesResponse, one: Letter) -> None:
        for name, part in one.parts.items():
            self._objects[name] = part  # type: ignore[assignment]
        head = Proto(metadata=Metadata())
        head.metadata.reply_to_message_id = one.replies_to
        told.messages_list.append(head)
        children = [ObjectTree(object_id=name) for name in one.tree if name != one.id]
        told.message_object_trees.append(ObjectTree(object_id=one.id, children=children))

    def PullObject(self, request: Any) -> PullObjectResponse:
        """Return a part of an answer."""
        if request.object_id not in self._objects:
            return PullObjectResponse(object_found=False)
        part = self._objects[request.object_id]
        if part is None:
            return PullObjectResponse(object_found=True, object_available=False)
        return PullObjectResponse(object_found=True, object_available=True, object_content=part)

    def ConfirmMessageReceived(self, request: Any) -> None:
        """Nothing is tidied up."""

"""Questions to sites that die, hang or answer late; the seam is the SuperLink, all else is real."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from fedrad.deployment.coordinator import network
from fedrad.deployment.coordinator import node_status as whereabouts
from fedrad.deployment.coordinator.network import NetworkGrid
from fedrad.deployment.coordinator.pending_queries import MAX_CRASHES, PendingQuery, ReplyHeader
from fedrad.deployment.coordinator.superlink import RunLost
from fedrad.deployment.packed_arrays import unpack_arrays
from fedrad.rounds.records import numbers_of, pack
from fedrad.simulation.in_process import InProcessGrid


@dataclass
class SuperLink:
    """Keeps messages as a SuperLink does; a test says what its sites answer, and when."""

    nodes_: dict[int, SimpleNamespace] = field(default_factory=dict)
    sent: list[Message] = field(default_factory=list)
    answers: dict[str, Message] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    lose_run: bool = False
    lose_content: int = 0
    run_id: int = 1
    opened: int = 0

    def nodes(self) -> list[SimpleNamespace]:
        """All registered nodes."""
        return list(self.nodes_.values())

    def join(self, node: int, *, at: str = "1", status: str = "online") -> None:
        """A site's SuperNode connects, or its state changes."""
        self.nodes_[node] = SimpleNamespace(
            node_id=node, name=f"site-{node}", status=status, last_activated_at=at
        )

    def open(self) -> None:
        """Open another run."""
        self.opened += 1
        self.lose_run = False
        self.sent, self.answers = [], {}

    def send(self, messages: Sequence[Message]) -> list[str]:
        """Take messages in."""
        if self.lose_content:
            self.lose_content -= 1
            raise ObjectPushError("object", self.run_id, "session")
        start = len(self.sent)
        self.sent += messages
        return [f"{self.opened}.{number}" for number in range(start, len(self.sent))]

    def to(self, node: int) -> list[str]:
        """The ids of the messages to a node, oldest first."""
        return [
            f"{self.opened}.{number}"
            for number, message in enumerate(self.sent)
            if message.metadata.dst_node_id == node
        ]

    def answer(self, number: str, content: RecordDict | Error) -> None:
        """Let a site answer a message."""
        self.answers[number] = Message(content, reply_to=self.sent[int(number.split(".")[1])])

    def heads(self, sent: Sequence[str]) -> Iterator[tuple[str, ReplyHeader]]:
        """Yield answers that have come, each once."""
        if self.lose_run:
            raise RunLost
        for number in sent:
            if number in self.answers and number not in self.heard:
                self.heard.add(number)
                yield number, ReplyHeader(number, (number,))


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    """A SuperLink with two connected sites."""
    InProcessGrid(None, {})  # type: ignore[arg-type]  # lets messages be made outside a runtime
    link = SuperLink()

    def fetch(link: SuperLink, asked: PendingQuery, reply: ReplyHeader, most: int) -> None:
        asked.parts[reply.id] = b""

    def open_up(link: SuperLink, asked: PendingQuery, reply: ReplyHeader, most: int) -> Message:
        return link.answers[reply.id]

    monkeypatch.setattr(network, "push", lambda link, messages: link.send(messages))
    monkeypatch.setattr(network, "poll_headers", lambda link, sent: link.heads(sent))
    monkeypatch.setattr(network, "fetch_payload", fetch)
    monkeypatch.setattr(network, "assemble_message", open_up)
    monkeypatch.setattr(whereabouts, "_LOOK_S", 0.0)
    link.join(7)
    link.join(8)
    return link


def grid(link: SuperLink, *, patience: float = 100.0, deadline: float = 100.0) -> NetworkGrid:
    """A grid over the SuperLink; every reply passes unless it says that it is bad."""
    return NetworkGrid(
        link,  # type: ignore[arg-type]
        deadline=deadline,
        patience=patience,
        check=lambda question, reply: "it is bad" if "bad" in numbers_of(reply.content) else None,
        limit=lambda question: 1 << 20,
        told=lambda waiting: None,
    )


def ask(grid: NetworkGrid, *nodes: int) -> list[str]:
    """Ask nodes to fit a model."""
    content = pack({"model": {"w": torch.ones(2)}}, config={"action": "fit"})
    return list(
        grid.push_messages([grid.create_message(content, "train", node, "1") for node in nodes])
    )


def value(n: float) -> RecordDict:
    """An answer that can be told from others."""
    return pack({}, {"n": n})


def test_what_crosses_is_what_was_asked_with_the_version_of_who_asks(link: SuperLink) -> None:
    ask(grid(link), 7)
    config = unpack_arrays(link.sent[0].content)
    assert config.config_records["config"]["action"] == "fit"
    assert "fedrad" in config.config_records["config"]


def test_a_site_that_came_back_is_asked_again_and_its_first_answer_counts(link: SuperLink) -> None:
    """A SuperNode that started anew has lost the question; its old answer may still come."""
    over = grid(link)
    (number,) = ask(over, 7)
    assert over.pull_messages([number]) == [] and len(link.to(7)) == 1
    link.join(7, at="2")
    assert over.pull_messages([number]) == []
    first, second = link.to(7)
    link.answer(second, value(2))
    (reply,) = over.pull_messages([number])
    assert numbers_of(reply.content) == {"n": 2.0}
    assert reply.metadata.reply_to_message_id == number
    link.answer(first, value(1))
    assert over.pull_messages([number]) == [], "a late answer is dropped"


@pytest.mark.parametrize("code", [ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED])
def test_an_error_of_flowers_own_is_no_answer(link: SuperLink, code: int) -> None:
    """The site has not said no: its line or its worker was gone."""
    over = grid(link)
    (number,) = ask(over, 7)
    link.answer(link.to(7)[0], Error(code, "gone"))
    assert over.pull_messages([number]) == []
    assert over.pull_messages([number]) == []
    link.answer(link.to(7)[-1], value(1))
    assert len(link.to(7)) == 2 and len(over.pull_messages([number])) == 1


def test_a_question_that_kills_every_worker_is_given_up(link: SuperLink) -> None:
    """Otherwise a message that no machine of the site can hold would be asked for ever."""
    over = grid(link)
    (number,) = ask(over, 7)
    for _ in range(MAX_CRASHES):
        link.answer(link.to(7)[-1], Error(ErrorCode.CLIENT_APP_CRASHED, "gone"))
        replies = list(over.pull_messages([number])) or list(over.pull_messages([number]))
    assert "died" in replies[0].error.reason


def test_garbage_is_an_error_that_says_why(link: SuperLink) -> None:
    over = grid(link)
    (number,) = ask(over, 7)
    link.answer(link.to(7)[0], pack({}, {"bad": 1.0}))
    (reply,) = over.pull_messages([number])
    assert reply.error.reason == "it is bad"


def test_a_site_that_is_away_is_given_up_when_patience_ends(link: SuperLink) -> None:
    over = grid(link, patience=0.0)
    link.join(7, status="offline")
    (number,) = ask(over, 7)
    (reply,) = over.pull_messages([number])
    assert "is not connected" in reply.error.reason


def test_answers_come_in_the_order_asked_for_unless_a_site_is_away(link: SuperLink) -> None:
    """Those whose turn has not come stay on the SuperLink's disk, not in this process."""
    over = grid(link)
    numbers = ask(over, 7, 8)
    link.answer(link.to(8)[0], value(8))
    assert over.pull_messages(numbers) == []
    link.join(7, status="offline")
    (reply,) = over.pull_messages(numbers)
    assert reply.metadata.reply_to_message_id == numbers[1]


def test_a_question_that_the_server_lost_while_it_took_it_in_is_asked_again(
    link: SuperLink,
) -> None:
    """kill -9 of the coordinator between a message's head and its arrays, and once more after."""
    link.lose_content = 2
    over = grid(link)
    numbers = ask(over, 7, 8)
    assert over.pull_messages(numbers) == [] and not link.sent
    assert over.pull_messages(numbers) == [] and len(link.sent) == 2
    for node in (7, 8):
        link.answer(link.to(node)[0], value(node))
    for node in (7, 8):
        (reply,) = over.pull_messages(numbers)
        assert numbers_of(reply.content) == {"n": node}
    assert len(link.sent) == 2


def test_a_question_that_is_lost_again_in_the_run_that_was_opened_for_it_is_asked_there(
    link: SuperLink,
) -> None:
    """The site has been there all the time, so nothing but the loss says that it must be asked."""
    over = grid(link)
    (number,) = ask(over, 7)
    link.lose_run, link.lose_content = True, 1
    assert over.pull_messages([number]) == [] and link.opened == 1 and not link.sent
    assert over.pull_messages([number]) == [] and len(link.sent) == 1
    link.answer(link.to(7)[0], value(1))
    assert len(list(over.pull_messages([number]))) == 1


def test_a_lost_run_is_opened_again_and_open_questions_are_asked_in_it(link: SuperLink) -> None:
    """A SuperLink that was down for longer than a token lives has ended the run."""
    over = grid(link)
    numbers = ask(over, 7, 8)
    link.lose_run = True
    assert over.pull_messages(numbers) == []
    assert link.opened == 1 and len(link.sent) == 2
    link.answer(link.to(7)[0], value(7))
    assert len(list(over.pull_messages(numbers))) == 1

"""The two verbs over a Grid that answers late, out of order, or never."""

from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from made import Told, experiment, federation

from fedrad.assemble import initial_state, server_task
from fedrad.core.state import Bundle, is_bit_identical
from fedrad.errors import SiteFailedError
from fedrad.rounds import nodes
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import client_app
from fedrad.rounds.flower_sites import FlowerSites
from fedrad.rounds.nodes import nodes_of
from fedrad.rounds.partial_aggregation import GROUP_SIZE, WEIGHT, partial_of
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.server import server_app
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid


class Unruly:
    """A Grid in front of another that answers backwards, and for some sites not at all."""

    def __init__(self, grid: InProcessGrid, silent: set[int]) -> None:
        self._grid, self._silent = grid, silent
        self._nodes: dict[str, int] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._grid, name)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        ids = list(self._grid.push_messages(messages))
        self._nodes |= dict(zip(ids, (m.metadata.dst_node_id for m in messages), strict=True))
        return ids

    def pull_messages(self, ids: Iterable[str]) -> Iterable[Message]:
        speaking = [n for n in reversed(list(ids)) if self._nodes[n] not in self._silent]
        return self._grid.pull_messages(speaking[:1])


def sites_of(
    folder: Path, *, silent: str = "", unruly: bool = True, **options: object
) -> FlowerSites:
    what = experiment()
    inner = InProcessGrid(
        client_app(Known(federation()), torch.device("cpu")),
        {name: folder / name for name in federation().sites},
    )
    nodes = nodes_of(inner, {"experiment": what.text()})
    grid = Unruly(inner, {nodes[silent].id} if silent else set()) if unruly else inner
    config = {"experiment": what.text(), "arm": "fedavg", "seed": 0}
    server = server_task(what.arm("fedavg"), seed=0, device=torch.device("cpu"))
    return FlowerSites(grid, nodes, config, number=1, rounds=4, server=server, **options)


START = {"model": initial_state(experiment().arm("fedavg"), 0)}


def test_replies_in_any_order_make_the_same_bits(tmp_path: Path) -> None:
    """Float sums depend on their order; ours is fixed, whoever answers first."""
    backwards = sites_of(tmp_path).mean("fit", START)
    in_order = sites_of(tmp_path, unruly=False).mean("fit", START)
    assert (
        is_bit_identical(backwards.arrays, in_order.arrays)
        and backwards.numbers == in_order.numbers
    )


def test_gathered_replies_come_sorted_by_site(tmp_path: Path) -> None:
    found = [name for name, _ in sites_of(tmp_path).gather("validate", START)]
    assert found == ["nord", "ost", "sued"]


def test_a_silent_site_is_named_when_the_deadline_is_over(tmp_path: Path) -> None:
    with pytest.raises(
        SiteFailedError, match=r"2 of 3 .* ost: no answer within 0.1 s|ost: no answer"
    ):
        sites_of(tmp_path, silent="ost", deadline=0.1).mean("fit", START)


def test_with_the_quorum_met_the_mean_is_that_of_the_repliers(tmp_path: Path) -> None:
    sites = sites_of(tmp_path, silent="ost", deadline=0.1, quorum=2)
    found = sites.mean("fit", START)
    assert sites.missing == {"ost": "no answer within 0.1 s"}
    assert found.numbers["num-examples"] == 40 + 32


def test_no_site_with_images_is_an_error_with_the_round(tmp_path: Path) -> None:
    with pytest.raises(SiteFailedError, match="round 1, fit: no site has any dose"):
        sites_of(tmp_path).mean("fit", START, weight="dose")


def test_an_unknown_action_is_told_by_the_sites(tmp_path: Path) -> None:
    with pytest.raises(SiteFailedError, match="action 'fti' is not one of"):
        sites_of(tmp_path).mean("fti", START)


Spoil = Callable[[Message, Message], Message]
"""(question, reply) -> what is answered instead."""


class Describing:
    """A grid at which some nodes describe themselves otherwise than they should."""

    def __init__(self, grid: InProcessGrid, spoil: dict[int, Spoil]) -> None:
        self._grid, self._spoil = grid, spoil

    def __getattr__(self, name: str) -> object:
        return getattr(self._grid, name)

    def send_and_receive(self, messages: Iterable[Message]) -> list[Message]:
        questions = list(messages)
        replies = self._grid.send_and_receive(questions)
        return [
            self._spoil.get(reply.metadata.src_node_id, honest)(question, reply)
            for question, reply in zip(questions, replies, strict=True)
        ]


def honest(question: Message, reply: Message) -> Message:
    """What a node says."""
    return reply


def told(**changes: object) -> Spoil:
    """A description with other settings or numbers; None takes one out."""

    def spoil(question: Message, reply: Message) -> Message:
        content = reply.content
        settings = {**config_of(content), **changes}
        numbers = {**numbers_of(content), **{k: settings.pop(k) for k in changes if "-" in k}}
        whole = {k: v for k, v in settings.items() if v is not None}
        reply.content = pack({}, {k: v for k, v in numbers.items() if v is not None}, whole)
        return reply

    return spoil


def error(question: Message, reply: Message) -> Message:
    """A node whose process failed."""
    return Message(Error(1, "OutOfMemory"), reply_to=question)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ({3: told(data=None, machine=3)}, "ost: its description does not say data, machine"),
        ({3: told(**{"num-examples": None})}, "ost: its description does not say how many images"),
        ({3: told(**{"num-examples": -1.0})}, "ost: its description does not say how many images"),
        ({3: told(**{"num-examples": inf})}, "ost: its description does not say how many images"),
        ({3: told(site=None)}, "node 3: its description does not say site"),
        ({3: error}, "node 3: did not say its name: OutOfMemory"),
        ({3: told(site="sued")}, "sued: 2 nodes say that they are this site"),
    ],
)
def test_a_node_that_describes_itself_badly_is_named_and_left_out(
    tmp_path: Path, spoil: dict[int, Spoil], says: str
) -> None:
    """One node of Flower's simulation ended the run of all others."""
    what, sites = experiment(), {name: tmp_path / name for name in federation().sites}
    inner = InProcessGrid(client_app(Known(federation()), torch.device("cpu")), sites)
    asked, said = {"experiment": what.text()}, list[str]()
    few = 1 if "2 nodes" in says else 2
    found = nodes_of(Describing(inner, spoil), asked, quorum=few, say=said.append)
    assert len(found) == few and "nord" in found and "ost" not in found
    assert len(said) == 1 and said[0].startswith(f"goes on without {says}")
    with pytest.raises(SiteFailedError, match=rf"needs 3 sites and {few} can be used \({says}"):
        nodes_of(Describing(inner, spoil), asked)
    with pytest.raises(SiteFailedError, match=rf"needs ost and {few} can be used \({says}"):
        nodes_of(Describing(inner, spoil), asked, quorum=few, needed=["nord", "ost"])


def test_a_run_goes_on_without_such_a_node_where_the_quorum_allows(tmp_path: Path) -> None:
    """Its site is in no round; without a quorum the run does not begin."""
    inner = InProcessGrid(
        client_app(Known(federation()), torch.device("cpu")),
        {name: tmp_path / name for name in federation().sites},
    )
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})

    def run(quorum: int | None, *held_out: str) -> Told:
        what = experiment(quorum=quorum, rounds=1, held_out_sites=held_out)
        folder = RunFolder(tmp_path / f"run-{quorum}")
        played = RunSpec(what, ["fedavg"], [0], held_out, folder, Told())
        server_app(played)(Describing(inner, {3: told(data=None)}), context)
        (line,) = folder.arm("fedavg", 0).rounds()
        assert line["answered"] == ["nord", "sued"] and folder.arm("fedavg", 0).evaluation()
        return played.progress

    assert run(2).notes == ["goes on without ost: its description does not say data"]
    with pytest.raises(SiteFailedError, match="needs 3 sites and 2 can be used"):
        run(None)
    with pytest.raises(SiteFailedError, match=r"needs ost and 2 can be used"):
        run(1, "ost")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda bundle, numbers: numbers.update({"loss-sum": inf}), "a number is not finite"),
        (
            lambda bundle, numbers: bundle["model"].update(
                {next(iter(bundle["model"])): torch.zeros(3, 3, 3)}
            ),
            "an array is not of the shape that was sent",
        ),
    ],
)
def test_a_block_of_sites_that_a_worker_adds_up_takes_no_more_than_the_coordinator_does(
    tmp_path: Path, spoil: Callable[[Bundle, dict[str, float]], None], says: str
) -> None:
    """Processes and Ray's actors add up by themselves; what is no answer is named, not added."""

    class Spoilt(InProcessGrid):
        def answer(self, message: Message) -> Message:
            reply = super().answer(message)
            if message.metadata.dst_node_id == 3:
                bundle, numbers = bundle_of(reply.content), numbers_of(reply.content)
                spoil(bundle, numbers)
                reply.content = pack(bundle, numbers, config_of(reply.content))
            return reply

    sites = {name: tmp_path / name for name in federation().sites}
    grid = Spoilt(client_app(Known(federation()), torch.device("cpu")), sites)
    config = {"experiment": experiment().text(), "arm": "fedavg", "seed": 0, "server-round": 1}
    block = {GROUP_SIZE: "nord,ost,sued", WEIGHT: "num-examples", "action": "fit"}
    reply = grid.answer_group(pack(START, config={**config, **block}), "train", 2, "1")
    part = partial_of(reply.content)
    assert part.failed == {"ost": part.failed["ost"]} and says in part.failed["ost"]
    assert part.mean.total == 40 + 32


class Latecomers:
    """A grid whose nodes come one after the other."""

    def __init__(self, *answers: list[int]) -> None:
        self.answers = list(answers)

    def get_node_ids(self) -> list[int]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_nodes_that_come_after_the_server_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """None, then two, then three: Flower's simulation makes them while the server runs."""
    monkeypatch.setattr(nodes, "_SETTLED_S", 0.01)
    assert nodes._node_ids(Latecomers([], [], [5, 3], [5, 3, 4])) == [5, 3, 4]
    monkeypatch.setattr(nodes, "_NODES_S", 0.1)
    with pytest.raises(SiteFailedError, match=r"no site has come within 0\.1 s"):
        nodes._node_ids(Latecomers([]))

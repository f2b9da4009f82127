"""The two verbs over a Grid that answers late, out of order, or never."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from made import experiment, federation

from fedrad.assemble import initial_state, server_task
from fedrad.core.state import same
from fedrad.errors import SiteFailed
from fedrad.federation import nodes
from fedrad.federation.client import client_app
from fedrad.federation.exchange import FlowerSites
from fedrad.federation.nodes import nodes_of
from fedrad.federation.simulation.inprocess import InProcessGrid
from fedrad.federation.site_tasks import Known


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
    assert same(backwards.arrays, in_order.arrays) and backwards.numbers == in_order.numbers


def test_gathered_replies_come_sorted_by_site(tmp_path: Path) -> None:
    found = [name for name, _ in sites_of(tmp_path).gather("validate", START)]
    assert found == ["nord", "ost", "sued"]


def test_a_silent_site_is_named_when_the_deadline_is_over(tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match=r"2 of 3 .* ost: no answer within 0.1 s|ost: no answer"):
        sites_of(tmp_path, silent="ost", deadline=0.1).mean("fit", START)


def test_with_the_quorum_met_the_mean_is_that_of_the_repliers(tmp_path: Path) -> None:
    sites = sites_of(tmp_path, silent="ost", deadline=0.1, quorum=2)
    found = sites.mean("fit", START)
    assert sites.missing == {"ost": "no answer within 0.1 s"}
    assert found.numbers["num-examples"] == 40 + 32


def test_no_site_with_images_is_an_error_with_the_round(tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match="round 1, fit: no site has any dose"):
        sites_of(tmp_path).mean("fit", START, weight="dose")


def test_an_unknown_action_is_told_by_the_sites(tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match="action 'fti' is not one of"):
        sites_of(tmp_path).mean("fti", START)


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
    with pytest.raises(SiteFailed, match=r"no site has come within 0\.1 s"):
        nodes._node_ids(Latecomers([]))

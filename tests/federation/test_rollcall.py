"""Each site bears its own name."""

import pytest
import torch
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from made import experiment, federation

from fedrad.deployment.coordinator import site_discovery as rollcall
from fedrad.deployment.coordinator.site_discovery import _data, _registered
from fedrad.errors import SiteFailedError
from fedrad.rounds.records import pack
from fedrad.rounds.site_summary import site_summary
from fedrad.simulation.in_process import InProcessGrid


def answer(site: str) -> Message:
    """A site's description of itself."""
    InProcessGrid(None, {})  # type: ignore[arg-type]  # lets messages be made outside a runtime
    question = Message(pack({}, config={"action": "describe"}), 2, "query")
    what = experiment()
    content = site_summary(federation().sites[site], what.task, torch.device("cpu"), digest="00")
    return Message(content, reply_to=question)


def test_a_site_under_anothers_key_is_named_with_both_names() -> None:
    """Two site files with one name, or a kit that was copied, would mix two hospitals up."""
    assert _data("nord", answer("nord"), experiment()).site == "nord"
    with pytest.raises(
        SiteFailedError, match="the key of ost is used by a site that says it is 'nord'"
    ):
        _data("ost", answer("nord"), experiment())


class Growing:
    """A grid whose coordinator takes in one site more at each look."""

    def __init__(self, *names: str) -> None:
        self._names, self._looks = names, 0

    def look(self, age: float = 0.0) -> dict[int, NodeInfo]:
        """The nodes that are registered by now."""
        self._looks += 1
        known = self._names[: self._looks - 1]
        return {n: NodeInfo(node_id=n, name=name, status="online") for n, name in enumerate(known)}


def test_who_is_waited_for_at_the_roll_call_is_told_with_how_long_yet() -> None:
    """Nothing else is on the screen meanwhile."""
    grid = Growing("nord", "ost")
    infos = {n: NodeInfo(node_id=k, name=n) for k, n in enumerate(("nord", "ost"))}
    grid.look(0.0)
    told = rollcall._waits(grid, ["ost", "nord"], infos, 116.4)  # type: ignore[arg-type]
    assert told == ("waiting for nord (is at work), ost (is not connected), for up to 116 s more")


def test_a_coordinator_that_has_just_started_is_given_time_to_register_all_its_sites(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that begins with the first one would leave the other hospitals out for good."""
    assert sorted(_registered(Growing("nord", "ost"), {"nord", "ost"})) == ["nord", "ost"]
    monkeypatch.setattr(rollcall, "_REGISTERED_S", 0.3)
    with pytest.raises(SiteFailedError, match="has not registered west; start it again"):
        _registered(Growing("nord", "ost"), {"nord", "west"})
    with pytest.raises(SiteFailedError, match="names no site; fedrad provision"):
        _registered(Growing(), ())

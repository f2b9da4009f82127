"""Whoever watches a run across hospitals is told whom it waits for; no clock is read here."""

from types import SimpleNamespace

import pytest
from test_network import SuperLink, ask, grid, link  # noqa: F401 - a fixture

from fedrad.deployment.coordinator import network
from fedrad.deployment.coordinator.remote import _waited
from fedrad.deployment.coordinator.wait_reports import WaitReports


def waits(said: list[str], *, patience: float = 120.0) -> WaitReports:
    made = WaitReports(said.append, patience=patience, deadline=3600.0)
    made.names = {1: "nord", 2: "ost", 3: "west"}
    return made


def test_a_site_that_is_away_is_named_at_once_and_then_seldom_with_how_long_yet() -> None:
    """The run looked like one that hangs: no line came until the round was over."""
    said: list[str] = []
    one = waits(said, patience=300.0)
    for tenth in range(1300):
        one.look({2: tenth / 10}, away=[2])
    assert said == [
        "waits for ost, which is not connected, for up to 5 min more",
        "waits for ost, which is not connected, for up to 4 min more",
        "waits for ost, which is not connected, for up to 177 s more",
    ]


def test_a_site_that_is_at_work_is_spoken_of_after_long_only() -> None:
    """A round of minutes is no news; one of ten minutes may be."""
    said: list[str] = []
    one = waits(said)
    for second in range(600):
        one.look({1: float(second), 3: float(second)}, away=[])
    assert said == []
    one.look({1: 600.0, 3: 600.0}, away=[])
    assert said == ["waits for nord, west, which are at work, for up to 50 min more"]


def test_a_site_that_goes_in_mid_round_and_one_that_is_asked_anew_are_told_of_from_the_start() -> (
    None
):
    said: list[str] = []
    one = waits(said)
    one.look({2: 50.0}, away=[])
    one.look({2: 51.0}, away=[2])
    assert len(said) == 1 and "for up to 69 s more" in said[0]
    one.look({2: 52.0}, away=[])
    one.look({2: 53.0}, away=[2])
    assert len(said) == 2
    # The next round's question.
    one.look({2: 1.0}, away=[2])
    one.look({2: 5.0}, away=[2])
    assert len(said) == 3 and "for up to 115 s more" in said[2]


def test_nodes_whose_names_are_not_known_yet_are_not_spoken_of() -> None:
    """Before the roll call is over it says itself whom it waits for."""
    said: list[str] = []
    one = waits(said)
    one.names = {}
    one.look({2: 50.0}, away=[2])
    assert said == []


def test_a_grid_that_waits_says_which_of_its_sites_has_gone(
    link: SuperLink,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the display is told comes from the same look as what is done."""
    now = [0.0]
    monkeypatch.setattr(network, "time", SimpleNamespace(monotonic=lambda: now[0]))
    said: list[str] = []
    one = WaitReports(said.append, patience=100.0, deadline=3600.0)
    one.names = {7: "nord", 8: "ost"}
    here = grid(link)
    status = SimpleNamespace(waiting=lambda seconds: None)
    here._told = lambda seconds: _waited(status, one, here, seconds)  # type: ignore[arg-type]
    asked = ask(here, 7, 8)
    link.join(8, status="offline")
    for second in range(8):
        now[0] = float(second)
        assert list(here.pull_messages(asked)) == []
    assert said == ["waits for ost, which is not connected, for up to 97 s more"]

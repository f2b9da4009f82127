"""A run across hospitals: streams are served for arms whose network is cut, and for no others."""

import socket
from pathlib import Path

import pytest
from made import Told
from split_arms import split_experiment
from test_provision import TEXT, asked

from fedrad.config import load_federation
from fedrad.deployment.coordinator.kit import CoordinatorKit
from fedrad.deployment.coordinator.remote import _streams
from fedrad.deployment.kits.provision import provision
from fedrad.deployment.streams.server import StreamServer
from fedrad.errors import ConfigError
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.runs import RunFolder


def kit(folder: Path, port: int | None) -> CoordinatorKit:
    text = TEXT.replace('"::1"]', f'"::1"], stream_port: {"null" if port is None else port}')
    provision(load_federation(asked(folder, text)), folder / "kits")
    return CoordinatorKit.load(folder / "kits" / "coordinator")


def play(folder: Path, *arms: str) -> RunSpec:
    what = split_experiment()
    return RunSpec(what, arms, what.seeds, (), RunFolder(folder / "run"), Told())


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_streams_are_served_on_the_kits_port_under_the_coordinators_name(
    tmp_path: Path, port: int
) -> None:
    """What sites are told must be what their own kits name, or their guards refuse it."""
    with _streams(play(tmp_path, "fedavg", "v1"), kit(tmp_path, port)) as server:
        assert isinstance(server, StreamServer)
        assert server.port == port
        with server.open(["nord"], run="r", round=1, deadline=5.0) as (_, invited):
            assert invited["nord"].address == f"fl.example.org:{port}"
            ca = (tmp_path / "kits" / "nord" / "ca.crt").read_text(encoding="ascii")
            assert invited["nord"].ca == ca


def test_without_a_cut_arm_nothing_listens(tmp_path: Path, port: int) -> None:
    """Also where other arms of the experiment are cut, but are not played by this command."""
    with (
        _streams(play(tmp_path, "fedavg"), kit(tmp_path, port)) as server,
        socket.socket() as probe,
    ):
        assert server is None
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_kit_without_the_port_says_how_to_provision_it(tmp_path: Path) -> None:
    told = r"arms: relay, v1 cut the network, .*no stream_port.*--stream-port 9095 --rotate coordin"
    with pytest.raises(ConfigError, match=told):
        _streams(play(tmp_path, "fedavg", "relay", "v1"), kit(tmp_path, None))
    assert _streams(play(tmp_path, "fedavg"), kit(tmp_path, None)).__enter__() is None


def test_a_kit_without_its_key_names_the_file(tmp_path: Path, port: int) -> None:
    one = kit(tmp_path, port)
    (one.folder / "server.key").unlink()
    with pytest.raises(ConfigError, match=r"server\.key cannot be read"):
        _streams(play(tmp_path, "v1"), one)
    with pytest.raises(ConfigError, match=r"server\.key is missing; fedrad provision makes one"):
        CoordinatorKit.load(one.folder)


def test_a_port_that_is_taken_is_an_error(tmp_path: Path, port: int) -> None:
    """A second server on it would take every other site."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", port))
        other.listen()
        with (
            pytest.raises(ConfigError, match=f"nothing can listen on 0.0.0.0:{port}"),
            _streams(play(tmp_path, "v1"), kit(tmp_path, port)),
        ):
            pass

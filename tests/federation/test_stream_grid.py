"""Split learning over real gRPC streams gives what it gives in process, whatever breaks."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_network import BrokenNetwork
from certificates import Certificates, certificates
from deployed import ENVIRONMENT
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from made import Told, experiment, federation, play
from site_process import ProcessesGrid

from fedrad.deployment.coordinator.reply_checker import ReplyChecker
from fedrad.deployment.streams.client import streams_over_grpc
from fedrad.deployment.streams.grid import StreamGrid
from fedrad.deployment.streams.server import StreamServer
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import client_app
from fedrad.rounds.server import server_app
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder

pytestmark = pytest.mark.deploy

WHAT = experiment(
    model={"name": "mlp", "hidden": [8, 8, 8]},
    rounds=2,
    validate_every=0,
    arms={
        "v1": {"algorithm": {"name": "splitfed", "version": 1, "cut": "layer1"}},
        "v2": {"algorithm": {"name": "splitfed", "version": 2, "cut": "layer1"}},
        "relay": {"algorithm": {"name": "splitnn", "cut": "layer1", "activations": "int8"}},
    },
    primary={"arm": "v1", "against": "v2"},
)


def app() -> ClientApp:
    """What a site's process runs; made there."""
    return client_app(Known(federation()), torch.device("cpu"), invited=streams_over_grpc())


def final(folder: Path, arm: str) -> bytes:
    return (folder / arm / "seed-0" / "state.safetensors").read_bytes()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("pem"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    play(folder, WHAT)
    return folder


@contextmanager
def streaming(
    folder: Path, pem: Certificates, **options: Any
) -> Iterator[tuple[ProcessesGrid, StreamServer, StreamGrid]]:
    """Sites as processes, and a server for their streams."""
    sites = {name: folder / "sites" / name for name in federation().sites}
    with (
        ProcessesGrid(app, sites) as grid,
        StreamServer(
            **{"bind": "127.0.0.1:0", "reach": "localhost", "patience": 2.0} | options,
            certificate=pem.certificate,
            key=pem.key,
            ca=pem.ca,
        ) as server,
    ):
        yield grid, server, StreamGrid(grid, server, ReplyChecker(WHAT).rules)


def run(folder: Path, grid: StreamGrid, *arms: str) -> Told:
    """Play some arms over a grid."""
    told = Told()
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    server_app(RunSpec(WHAT, arms, WHAT.seeds, (), RunFolder(folder), told))(grid, context)
    return told


def test_over_grpc_every_algorithm_gives_the_bits_that_it_gives_in_process(
    undisturbed: Path, pem: Certificates, tmp_path: Path
) -> None:
    with streaming(tmp_path, pem) as (_, _, grid):
        told = run(tmp_path, grid, *WHAT.arm_names)
    assert told.stopped == {}
    for arm in WHAT.arm_names:
        assert final(tmp_path, arm) == final(undisturbed, arm)
        assert RunFolder(tmp_path).arm(arm, 0).evaluation().counts


def test_cut_off_in_mid_round_again_and_again_the_bits_are_the_same(
    undisturbed: Path, pem: Certificates, tmp_path: Path
) -> None:
    marks = (8_000, 15_000, 30_000, 31_000, 36_000)
    with (
        BrokenNetwork(cut_after=marks) as network,
        streaming(tmp_path, pem, reach=f"localhost:{network.port}") as (_, server, grid),
    ):
        network.target = server.port
        told = run(tmp_path, grid, "v1")
        assert network.cuts == len(marks)
    assert told.stopped == {}
    assert final(tmp_path, "v1") == final(undisturbed, "v1")


def test_a_site_killed_in_mid_round_is_named_and_the_round_is_played_again(
    undisturbed: Path, pem: Certificates, tmp_path: Path
) -> None:
    """kill -9 of a hospital's process, at its third frame of a round."""
    with streaming(tmp_path, pem) as (grid, server, streams):
        killer = threading.Thread(target=kill_when_playing, args=(grid, server, "ost"))
        killer.start()
        told = run(tmp_path, streams, "v1")
        killer.join()
    assert told.stopped == {}
    path = tmp_path / "v1" / "seed-0" / "rounds.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    (reason,) = first["repeated"]
    assert "ost" in reason and "nord" not in reason
    assert final(tmp_path, "v1") == final(undisturbed, "v1")


def kill_when_playing(grid: ProcessesGrid, server: StreamServer, site: str) -> None:
    """Kill a site's process once it has sent its third packet."""
    while True:
        links = [s.link for (name, _, _), s in dict(server._sessions).items() if name == site]
        if links and links[0].received >= 3:
            grid.kill(site)
            return
        time.sleep(0.001)


COORDINATOR = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from certificates import certificates
from test_stream_grid import run, streaming
from fedrad.deployment.streams.session import ResumableSession

count = 0
whole = ResumableSession.send

def counting(self, frame):
    global count
    count += (folder / "v2/seed-0/server/round-000001.safetensors").exists()
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, frame)

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[3] == "killed":
        ResumableSession.send = counting
    with streaming(folder, certificates(folder / "pem")) as (_, _, grid):
        run(folder, grid, "v2")
"""


def test_the_coordinator_killed_in_mid_round_goes_on_with_the_same_command(
    undisturbed: Path, tmp_path: Path
) -> None:
    """kill -9 of the coordinator as it sends the third frame of round 2."""
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR)
    here = str(Path(__file__).parent)
    code = [sys.executable, str(script), here, str(tmp_path)]
    assert returncode([*code, "killed"]) == -signal.SIGKILL
    assert len(list((tmp_path / "v2" / "seed-0" / "server").iterdir())) == 1
    assert returncode([*code, "whole"]) == 0
    assert final(tmp_path, "v2") == final(undisturbed, "v2")


def returncode(code: list[str]) -> int:
    """Run a coordinator; when it is over, so are the sites that it started."""
    process = subprocess.Popen(code, start_new_session=True, env=ENVIRONMENT)
    found = process.wait(timeout=300)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return found

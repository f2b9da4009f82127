"""Flower's own simulation, also as `flwr run` starts it, plays our apps to the same model."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from fedrad.config import load_experiment
from fedrad.data.sites import federation_of
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.progress import LoggedProgress
from fedrad.runs import RunFolder
from fedrad.simulation.launch import run_local

TEXT = """
task: {name: binary, labels: [lesion], input: [1, 32, 32]}
data: {name: phantom, hospitals: {nord: {patients: 30}, ost: {patients: 20}, sued: {patients: 25}}}
model: {name: cnn, width: 4}
local: {steps: 3, batch: 8}
rounds: 2
replicates: 0
metrics: [auroc, brier]
algorithm: {name: fedprox, mu: 0.1}
"""
SIMULATION = """
import sys
from pathlib import Path
from flwr.simulation import run_simulation
from fedrad.config import load_experiment
from fedrad.deployment.flower_app import client
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.server import server_app
from fedrad.rounds.progress import LoggedProgress
from fedrad.runs import RunFolder

experiment = load_experiment(Path("small.yaml"), [])
play = RunSpec(experiment, ["fedprox"], [0], (), RunFolder(Path("flower")), LoggedProgress())
run_simulation(
    server_app(play), client, num_supernodes=3,
    backend_config={"client_resources": {"num_cpus": 1}},
)
"""


ROOT = Path(__file__).parents[2]
KEPT = Path("fedprox/seed-0/state.safetensors")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment, and what `local` makes of it."""
    path = tmp_path_factory.mktemp("small")
    (path / "small.yaml").write_text(TEXT, encoding="utf-8")
    experiment = load_experiment(path / "small.yaml", [])
    play = RunSpec(experiment, ["fedprox"], [0], (), RunFolder(path / "local"), LoggedProgress())
    run_local(play, federation_of(experiment, path), torch.device("cpu"))
    return path


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """Variables under which Flower writes to no home but a temporary one, and asks nobody."""
    home = {"HOME": str(tmp_path), "FLWR_HOME": str(tmp_path / "flwr")}
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return os.environ | home | quiet | {"PATH": f"{Path(sys.executable).parent}:{os.defpath}"}


@pytest.fixture
def superlink(surroundings: dict[str, str]) -> Iterator[str]:
    """A SuperLink that simulates; the one that `flwr run` starts by itself would never end.

    It would also install this project's dependencies anew for every run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    switches = ["--insecure", "--simulation", "--disable-runtime-dependency-installation"]
    process = subprocess.Popen(
        ["flower-superlink", *switches, "--host", "127.0.0.1", "--port", str(port)],
        env=surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(f"http://127.0.0.1:{port}/health")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str) -> None:
    ends = time.monotonic() + 60
    while True:
        try:
            urlopen(url).close()
            return
        except URLError:
            assert time.monotonic() < ends, "the SuperLink does not answer"
            time.sleep(0.1)


@pytest.mark.ray
def test_flowers_own_simulation_gives_the_model_of_local(
    small: Path, surroundings: dict[str, str]
) -> None:
    """Bit for bit: node i of n is the i-th site, and replies are summed in the sites' order."""
    ran = subprocess.run(
        [sys.executable, "-c", SIMULATION],
        cwd=small,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (small / "flower" / KEPT).is_file(), ran.stderr[-2000:]
    assert (small / "flower" / KEPT).read_bytes() == (small / "local" / KEPT).read_bytes()


@pytest.mark.ray
def test_flwr_run_gives_the_model_of_local(
    small: Path, surroundings: dict[str, str], superlink: str
) -> None:
    """Flower's own command packs this project and plays the apps that pyproject.toml names."""
    home = Path(surroundings["FLWR_HOME"])
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink.here]\naddress = "{superlink}"\ninsecure = true\n', encoding="utf-8"
    )
    ran = subprocess.run(
        [
            "flwr", "run", ".", "here", "--stream",
            "--federation-config", "num-supernodes=3 client-resources-num-cpus=1",
            "--run-config", f'experiment="{small / "small.yaml"}" out="{small / "run"}"',
        ],
        cwd=ROOT,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    found = small / "run" / "small" / KEPT
    assert found.is_file(), (ran.stdout + ran.stderr)[-2000:]
    assert found.read_bytes() == (small / "local" / KEPT).read_bytes()

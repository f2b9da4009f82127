"""Flower's own simulation, which `flwr run` starts, plays our apps to the same model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedrad.config import load_experiment
from fedrad.data.sites import federation_of
from fedrad.federation.launch import run_local
from fedrad.federation.server import Play
from fedrad.federation.watch import LoggedProgress
from fedrad.runs import RunFolder

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
from fedrad.federation.app import client
from fedrad.federation.server import Play, server_app
from fedrad.federation.watch import LoggedProgress
from fedrad.runs import RunFolder

experiment = load_experiment(Path("small.yaml"), [])
play = Play(experiment, ["fedprox"], [0], (), RunFolder(Path("flower")), LoggedProgress())
run_simulation(
    server_app(play), client, num_supernodes=3,
    backend_config={"client_resources": {"num_cpus": 1}},
)
"""


@pytest.mark.ray
def test_flowers_own_simulation_gives_the_model_of_local(tmp_path: Path) -> None:
    """Bit for bit: node i of n is the i-th site, and replies are summed in the sites' order."""
    (tmp_path / "small.yaml").write_text(TEXT, encoding="utf-8")
    experiment = load_experiment(tmp_path / "small.yaml", [])
    folder = RunFolder(tmp_path / "local")
    play = Play(experiment, ["fedprox"], [0], (), folder, LoggedProgress())
    run_local(play, federation_of(experiment, tmp_path), torch.device("cpu"))
    ran = subprocess.run(
        [sys.executable, "-c", SIMULATION],
        cwd=tmp_path,
        env=os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    kept = Path("fedprox/seed-0/state.safetensors")
    assert (tmp_path / "flower" / kept).is_file(), ran.stderr[-2000:]
    assert (tmp_path / "flower" / kept).read_bytes() == (tmp_path / "local" / kept).read_bytes()

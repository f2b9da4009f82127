"""Keeping Flower's keys on the wire: a stock strategy drives our ClientApp, and agrees with us."""

from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg
from made import experiment, federation, play

from fedrad.assemble import initial_state
from fedrad.core.store import load_bundle
from fedrad.rounds.client_app import client_app
from fedrad.rounds.site_tasks import Known
from fedrad.simulation.in_process import InProcessGrid


def test_flowers_own_fedavg_on_our_client_app_is_our_fedavg(tmp_path: Path) -> None:
    """Two implementations of the same mean; Flower's adds in order of arrival, so 1e-6."""
    what, sites = experiment(), federation()
    play(tmp_path / "ours", what, sites, arms=["fedavg"])
    ours = load_bundle(tmp_path / "ours" / "fedavg" / "seed-0" / "state.safetensors")["model"]

    app = client_app(Known(sites), torch.device("cpu"))
    grid = InProcessGrid(app, {name: tmp_path / name for name in sites.sites})
    result = FedAvg(fraction_evaluate=0.0, min_available_nodes=3).start(
        grid=grid,
        initial_arrays=ArrayRecord(initial_state(what.arm("fedavg"), 0)),
        num_rounds=what.rounds,
        train_config=ConfigRecord({"experiment": what.text(), "arm": "fedavg", "seed": 0}),
    )
    stock = result.arrays.to_torch_state_dict()
    assert stock.keys() == ours.keys()
    for name, value in ours.items():
        torch.testing.assert_close(stock[name], value, atol=1e-6, rtol=0)

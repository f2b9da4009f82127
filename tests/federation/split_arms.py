"""A small experiment of split arms, beside the federated arm that one of them must equal."""

from typing import Any

from made import experiment

from fedrad.config import Experiment

CUT = {"cut": "layer1"}
ARMS: dict[str, dict[str, Any]] = {
    "fedavg": {"algorithm": "fedavg"},
    "v1": {"algorithm": {"name": "splitfed", **CUT}},
    "v1_labels": {"algorithm": {"name": "splitfed", "shape": "labels_at_server", **CUT}},
    "v2": {"algorithm": {"name": "splitfed", "version": 2, **CUT}},
    "v3": {"algorithm": {"name": "splitfed", "version": 3, **CUT}},
    "relay": {"algorithm": {"name": "splitnn", **CUT}},
    "relay_batch": {"algorithm": {"name": "splitnn", "alternate": "minibatch", **CUT}},
    "narrow": {
        "algorithm": {
            "name": "splitfed", "version": 2, "activations": "int8", "gradients": "float16",
            "nopeek": 0.1, "noise": 0.1, **CUT,
        },
        "local": {"class_weights": "global"},
    },
    "labels_narrow": {
        "algorithm": {
            "name": "splitnn", "shape": "labels_at_server", "activations": "float16", **CUT,
        },
        "local": {"class_weights": "site"},
    },
    "tuned": {
        "algorithm": {"name": "splitfed", **CUT}, "wrap": [{"name": "finetune", "rounds": 1}],
    },
}  # fmt: skip


def split_experiment(**changes: object) -> Experiment:
    """The experiment; batches of 7 leave a smaller last one at every site."""
    return experiment(
        **{
            "arms": ARMS,
            "model": {"name": "mlp", "hidden": [8, 6]},
            "local": {
                "epochs": 1,
                "batch": 7,
                "optimizer": {"name": "adam", "lr": 0.02},
                "clip": 0.5,
            },
            "primary": {"arm": "v2", "against": "fedavg"},
            "rounds": 3,
        }
        | changes
    )

"""The table of algorithms and of the wrappers that go around them."""

from collections.abc import Callable, Mapping

from fedrad.algorithms.base import Algorithm
from fedrad.algorithms.central_dp import central_dp
from fedrad.algorithms.centralized import centralized
from fedrad.algorithms.fedavg import fedavg
from fedrad.algorithms.fedprox import fedprox
from fedrad.algorithms.finetune import finetune
from fedrad.algorithms.float16_updates import float16_updates
from fedrad.algorithms.local import local
from fedrad.algorithms.split.splitfed import splitfed
from fedrad.algorithms.split.splitnn import splitnn

ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = {
    "centralized": centralized,
    "fedavg": fedavg,
    "fedprox": fedprox,
    "local": local,
    "splitfed": splitfed,
    "splitnn": splitnn,
}

WRAPPERS: Mapping[str, Callable[..., Algorithm]] = {
    "central_dp": central_dp,
    "finetune": finetune,
    "float16_updates": float16_updates,
}

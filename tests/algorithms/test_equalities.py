"""What must be equal whatever the data: the limit cases of every algorithm."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from calls import TASK, Calls, net, run_rounds, site_data, task_of

from fedrad.algorithms import ALGORITHMS
from fedrad.algorithms.base import PERSONAL, Algorithm
from fedrad.algorithms.fedavg import fedavg
from fedrad.algorithms.fedprox import fedprox
from fedrad.algorithms.finetune import finetune
from fedrad.algorithms.local import local
from fedrad.core.state import is_bit_identical
from fedrad.data.base import pooled_site
from fedrad.training.objective import objective

SITES = [site_data("nord", 12), site_data("ost", 7, shift=1.0), site_data("sued", 9, shift=-1.0)]


def tasks(**changes: object) -> dict:
    return {data.site: task_of(data, **changes) for data in SITES}


NEEDED: dict[str, dict] = {"splitfed": {"cut": "0"}, "splitnn": {"cut": "0"}}
"""Options that have no default."""


def test_one_full_batch_step_at_each_site_is_one_step_on_the_pooled_images() -> None:
    """The pooled gradient is the mean of the sites' gradients weighted by images."""
    state, _ = run_rounds(fedavg(), tasks(batch=100), rounds=1)
    together = pooled_site(SITES, "pooled")
    model = net()
    x = torch.from_numpy(together.x[together.rows["train"]])
    y = torch.from_numpy(together.y[together.rows["train"]])
    objective(TASK).loss(model(x), y).backward()
    with torch.no_grad():
        expected = {name: p - 0.1 * p.grad for name, p in model.named_parameters()}
    for name, value in expected.items():
        torch.testing.assert_close(state["model"][name], value, atol=1e-6, rtol=0)


def test_fedprox_with_mu_0_is_fedavg_bit_for_bit() -> None:
    ours, _ = run_rounds(fedprox(mu=0.0), tasks(), rounds=3)
    plain, _ = run_rounds(fedavg(), tasks(), rounds=3)
    assert is_bit_identical(ours, plain)


def test_fedprox_with_mu_is_not_fedavg() -> None:
    ours, _ = run_rounds(fedprox(mu=0.5), tasks(), rounds=3)
    plain, _ = run_rounds(fedavg(), tasks(), rounds=3)
    assert not is_bit_identical(ours, plain)


def test_the_larger_mu_the_nearer_the_site_stays_to_where_it_started() -> None:
    """With one site and one round the distance to the start falls as mu grows."""
    one = {"nord": task_of(SITES[0])}
    start = one["nord"].initial()

    def distance(mu: float) -> float:
        state, _ = run_rounds(fedprox(mu=mu), one, rounds=1)
        return sum(float((state["model"][k] - v).square().sum()) for k, v in start.items())

    assert distance(0.0) > distance(1.0) > distance(5.0)


def test_one_site_federated_is_that_site_trained_alone() -> None:
    one = {"nord": task_of(SITES[0])}
    common, _ = run_rounds(fedavg(), one, rounds=4)
    _, memories = run_rounds(local(), one, rounds=4)
    for name, value in common["model"].items():
        torch.testing.assert_close(value, memories["nord"][PERSONAL][name], atol=1e-6, rtol=0)


def test_a_site_alone_hears_nothing_of_the_others() -> None:
    """Change every other site's data: nord's own model keeps its bits."""
    _, before = run_rounds(local(), tasks(), rounds=2)
    others = {d.site: task_of(site_data(d.site, 5, seed=9)) for d in SITES[1:]}
    _, after = run_rounds(local(), {"nord": task_of(SITES[0]), **others}, rounds=2)
    assert is_bit_identical(before["nord"], after["nord"])
    assert not is_bit_identical(before["ost"], after["ost"])


def test_finetuning_leaves_the_common_model_as_the_last_federated_round_made_it() -> None:
    tuned, memories = run_rounds(finetune(fedavg(), rounds=2), tasks(), rounds=5)
    plain, _ = run_rounds(fedavg(), tasks(), rounds=3)
    assert is_bit_identical(tuned, plain)
    assert set(memories) == {"nord", "ost", "sued"} and all(
        PERSONAL in m for m in memories.values()
    )


def test_finetuning_is_training_on_from_the_common_model() -> None:
    """The personal model is two more rounds of the site alone, from the common one."""
    tuned, memories = run_rounds(finetune(fedavg(), rounds=2), tasks(), rounds=5)
    alone = task_of(SITES[1])
    state = tuned["model"]
    for number in (4, 5):
        state = alone.fit(state, round=number).state
    assert is_bit_identical({PERSONAL: state}, memories["ost"])


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_an_algorithm_gives_the_same_bits_twice_and_keeps_nothing_between(name: str) -> None:
    algorithm: Algorithm = ALGORITHMS[name](**NEEDED.get(name, {}))
    first = run_rounds(algorithm, tasks(), rounds=2)
    second = run_rounds(algorithm, tasks(), rounds=2)
    assert is_bit_identical(first[0], second[0])
    assert all(is_bit_identical(first[1][site], second[1][site]) for site in first[1])


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_site_without_images_changes_nothing(name: str) -> None:
    """It has weight zero; the others' mean is the same bits as without it."""
    empty = site_data("leer", 4)
    empty = replace(empty, rows={**empty.rows, "train": np.arange(0)})
    with_it, _ = run_rounds(
        ALGORITHMS[name](**NEEDED.get(name, {})), {**tasks(), "leer": task_of(empty)}, rounds=2
    )
    without, _ = run_rounds(ALGORITHMS[name](**NEEDED.get(name, {})), tasks(), rounds=2)
    assert is_bit_identical(with_it, without)


def test_state_is_passed_from_round_to_round_and_nowhere_else() -> None:
    """Resume: rounds 3 and 4 played from a saved state are those of an unbroken run."""
    whole, _ = run_rounds(fedavg(), tasks(), rounds=4)
    half, _ = run_rounds(fedavg(), tasks(), rounds=2)
    calls = Calls(fedavg(), tasks(), rounds=4)
    for number in (3, 4):
        calls.number = number
        half = fedavg().round(half, number, calls)
    assert is_bit_identical(half, whole)

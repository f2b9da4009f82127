"""Updates in 16 bits: what they are by hand, how far off they can be, and what they go with."""

from dataclasses import replace

import pytest
import torch
from calls import Calls, play_rounds, run_rounds, site_data, task_of

from fedrad.algorithms.base import Algorithm, Reply, Request
from fedrad.algorithms.central_dp import central_dp
from fedrad.algorithms.fedavg import fedavg
from fedrad.algorithms.fedprox import fedprox
from fedrad.algorithms.finetune import finetune
from fedrad.algorithms.float16_updates import float16_updates
from fedrad.algorithms.split.splitfed import splitfed
from fedrad.core.state import Bundle, State, is_bit_identical, num_bytes
from fedrad.errors import ConfigError, TrainingDivergedError

TASKS = {
    data.site: task_of(data)
    for data in (site_data("nord", 12), site_data("ost", 7, shift=1.0), site_data("sued", 9))
}
START = TASKS["nord"].initial()


def replies(algorithm: Algorithm) -> dict[str, Reply]:
    """What each site answers in round 1."""
    return dict(Calls(algorithm, TASKS, 1, number=1).gather("fit", {"model": START}))


def sending(*states: State, others: Bundle | None = None) -> tuple[Algorithm, dict]:
    """FedAvg whose sites come to given states from the start, and their tasks."""
    wanted = dict(zip(TASKS, states, strict=False))

    def fit(request: Request) -> tuple[Reply, Bundle]:
        numbers = {"num-examples": float(request.local.examples)}
        return Reply({"model": wanted[request.site], **(others or {})}, numbers), {}

    return replace(fedavg(), handlers={"fit": fit}), {name: TASKS[name] for name in wanted}


@pytest.mark.parametrize("federated", [fedavg, lambda: fedprox(mu=0.1)], ids=["fedavg", "fedprox"])
def test_one_round_is_the_mean_of_the_rounded_changes_added_to_the_model(federated) -> None:
    """By hand: 12, 7 and 9 training rows weigh the changes, which are rounded one by one."""
    exact = {site: reply.arrays["model"] for site, reply in replies(federated()).items()}
    weights = {"nord": 12, "ost": 7, "sued": 9}
    state, _ = run_rounds(float16_updates(federated()), TASKS, rounds=1)
    for name, start in START.items():
        rounded = {site: (exact[site][name] - start).half().float() for site in weights}
        mean = sum(weights[site] * rounded[site] for site in weights) / 28
        assert torch.equal(state["model"][name], start + mean)
        assert not torch.equal(state["model"][name], start)


def test_each_element_of_a_change_is_off_by_no_more_than_is_stated() -> None:
    """From subnormal changes to large ones, and none: max(|change| / 2^11, 2^-25)."""
    draws = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-12, 4, 4096, base=10)
    change = torch.cat([sizes * torch.randn(4096, generator=draws), torch.zeros(1)])
    algorithm, tasks = sending({"w": change})
    handler = float16_updates(algorithm).handlers["fit"]
    zero = {"model": {"w": torch.zeros_like(change)}}
    reply, _ = handler(Request("nord", 1, zero, {}, next(iter(tasks.values()))))
    sent = reply.arrays["change"]["w"]
    assert sent.dtype == torch.float16
    bound = (change.abs().double() / 2**11).clamp_min(2.0**-25)
    error = (sent.double() - change.double()).abs()
    assert bool((error <= bound).all())
    # The bound is no larger than it must be: some elements come within a tenth of it.
    assert float((error / bound).max()) > 0.9


def test_the_model_after_a_round_is_fedavgs_within_the_stated_error() -> None:
    """The mean of errors is no larger than the mean of their bounds; float32 rounds on top."""
    exact = {site: reply.arrays["model"] for site, reply in replies(fedavg()).items()}
    plain, _ = run_rounds(fedavg(), TASKS, rounds=1)
    ours, _ = run_rounds(float16_updates(fedavg()), TASKS, rounds=1)
    for name, start in START.items():
        bounds = [((one[name] - start).abs() / 2**11).clamp_min(2**-25) for one in exact.values()]
        mean = (12 * bounds[0] + 7 * bounds[1] + 9 * bounds[2]) / 28
        float32 = 4 * torch.finfo(torch.float32).eps * start.abs().clamp_min(1)
        assert bool(((ours["model"][name] - plain["model"][name]).abs() <= mean + float32).all())


def test_the_mean_is_made_in_float32() -> None:
    """60000 twice overflows float16, and 2049 is none of its numbers; both are means here."""
    start = {"w": torch.zeros(2)}
    one, other = {"w": torch.tensor([60000.0, 2048.0])}, {"w": torch.tensor([60000.0, 2050.0])}
    algorithm, tasks = sending(one, other)
    even = {name: replace(task, data=TASKS["nord"].data) for name, task in tasks.items()}
    wrapped = float16_updates(algorithm)
    after = wrapped.round({"model": start}, 1, Calls(wrapped, even, 1, number=1))["model"]["w"]
    assert after.dtype == torch.float32 and after.tolist() == [60000.0, 2049.0]


def test_half_of_what_went_up_goes_up() -> None:
    """Two bytes an element instead of four, and no other array."""
    exact, rounded = replies(fedavg()), replies(float16_updates(fedavg()))
    for site in TASKS:
        assert 2 * num_bytes(rounded[site].arrays) == num_bytes(exact[site].arrays)
        assert rounded[site].arrays.keys() == {"change"}
        assert rounded[site].numbers == exact[site].numbers


def test_counters_and_other_arrays_go_as_they_are() -> None:
    """Batch counts are no change and must stay whole; control variates have an error of their own.

    The mean of 5 and 8 batches, weighed 12 to 7, is 6.1.
    """
    start = {"w": torch.zeros(1), "batches": torch.tensor(4)}
    states = [{"w": torch.ones(1), "batches": torch.tensor(count)} for count in (5, 8)]
    variate = {"c": {"w": torch.tensor([0.1])}}
    algorithm, tasks = sending(*states, others=variate)
    wrapped = float16_updates(algorithm)
    found = dict(Calls(wrapped, tasks, 1, number=1).gather("fit", {"model": start}))
    assert found["nord"].arrays["model"] == {"batches": states[0]["batches"]}
    assert found["nord"].arrays["c"]["w"].dtype == torch.float32
    after = wrapped.round({"model": start}, 1, Calls(wrapped, tasks, 1, number=1))["model"]
    assert after["batches"].dtype == torch.int64 and after["batches"].item() == 6
    assert list(after) == list(start)


def test_it_goes_around_and_inside_fine_tuning_alike() -> None:
    """Rounds at home send no model, so there is nothing to round."""
    inside, calls = play_rounds(finetune(float16_updates(fedavg()), rounds=1), TASKS, 3)
    around, others = play_rounds(float16_updates(finetune(fedavg(), rounds=1)), TASKS, 3)
    assert is_bit_identical(inside, around)
    for site in TASKS:
        assert is_bit_identical(calls.memories[site], others.memories[site])
    bare, _ = run_rounds(float16_updates(fedavg()), TASKS, rounds=2)
    assert is_bit_identical(inside, bare)


@pytest.mark.parametrize("far", [70000.0, float("nan"), float("inf")])
def test_what_float16_does_not_hold_is_told_and_not_sent(far: float) -> None:
    """65504 is the largest of its numbers; infinity would spoil every site's model."""
    algorithm, tasks = sending({"w": torch.tensor([far])})
    wrapped = float16_updates(algorithm)
    with pytest.raises(TrainingDivergedError, match="float16 holds at most 65504"):
        wrapped.round({"model": {"w": torch.zeros(1)}}, 1, Calls(wrapped, tasks, 1, number=1))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: float16_updates(central_dp(fedavg())), "rounded after it was clipped"),
        (lambda: float16_updates(finetune(central_dp(fedavg()))), "rounded after it was clipped"),
        (lambda: central_dp(float16_updates(fedavg())), "clips the change itself"),
        (lambda: float16_updates(splitfed(cut="0")), "activations: float16 instead"),
        (lambda: float16_updates(finetune(splitfed(cut="0"))), "activations: float16 instead"),
    ],
)
def test_what_it_does_not_go_with_is_told_before_anything_is_played(build, says: str) -> None:
    """A clipped change that is rounded up is longer than its noise hides; frames are no update."""
    with pytest.raises(ConfigError, match=says):
        build()


def test_an_algorithm_that_reads_single_models_is_refused() -> None:
    """It would find changes where it looks for models."""
    nosy = replace(fedavg(), round=lambda s, n, sites: dict(sites.gather("fit", s)))
    with pytest.raises(ConfigError, match="that read the mean alone"):
        run_rounds(float16_updates(nosy), TASKS, rounds=1)

"""Arithmetic of states: the mean is a mean, whatever is in it."""

import pytest
import torch

from fedrad.core.state import Mean, all_finite, clone, is_bit_identical, num_bytes


def test_the_mean_is_weighted_by_what_each_site_brings() -> None:
    """(1 * 0 + 3 * 4) / 4 = 3."""
    mean = Mean()
    mean.add({"model": {"w": torch.tensor([0.0])}}, weight=1)
    mean.add({"model": {"w": torch.tensor([4.0])}}, weight=3)
    assert mean.value()["model"]["w"].item() == 3.0


def test_the_mean_of_one_bundle_is_that_bundle_bit_for_bit() -> None:
    """One site federated is one site trained; weights that are powers of two divide exactly."""
    bundle = {"model": {"w": torch.randn(1000, generator=torch.Generator().manual_seed(0))}}
    mean = Mean()
    mean.add(bundle, weight=64)
    assert is_bit_identical(mean.value(), bundle)


def test_adding_does_not_change_what_is_added() -> None:
    value = torch.ones(3)
    mean = Mean()
    mean.add({"model": {"w": value}}, weight=2)
    mean.add({"model": {"w": value}}, weight=2)
    assert value.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float32(kind: torch.dtype) -> None:
    """2048 + 1 is 2048 in both kinds, and 300 times 300 beyond float16: the mean has neither."""
    mean = Mean()
    mean.add({"model": {"w": torch.tensor([2048.0, 256.0], dtype=kind)}}, weight=1)
    mean.add({"model": {"w": torch.tensor([1.0, 256.0], dtype=kind)}}, weight=299)
    value = mean.value()["model"]["w"]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, torch.tensor([(2048 + 299) / 300, 256.0]))


def test_counters_stay_whole_numbers() -> None:
    """`num_batches_tracked` is int64; Flower's own aggregation turns it into float64."""
    mean = Mean()
    mean.add({"model": {"n": torch.tensor(4)}}, weight=1)
    mean.add({"model": {"n": torch.tensor(9)}}, weight=1)
    value = mean.value()["model"]["n"]
    assert value.dtype == torch.int64 and value.item() == 6  # 6.5, to the even neighbour


def test_no_weight_at_all_and_negative_weights_are_errors() -> None:
    mean = Mean()
    mean.add({"model": {"w": torch.ones(1)}}, weight=0)
    with pytest.raises(ValueError, match="sum to zero"):
        mean.value()
    with pytest.raises(ValueError, match="must not be negative"):
        mean.add({}, weight=-1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_none_is_found(bad: float) -> None:
    state = {"w": torch.zeros(100)}
    assert all_finite({"model": state})
    state["w"][37] = bad
    assert not all_finite({"model": state})


def test_finite_numbers_whose_sum_overflows_are_finite() -> None:
    assert all_finite({"model": {"w": torch.full((4,), 3e38)}})


def test_a_clone_is_the_same_and_shares_nothing() -> None:
    state = {"w": torch.ones(2)}
    copy = clone(state)
    assert is_bit_identical({"model": state}, {"model": copy})
    copy["w"] += 1
    assert not is_bit_identical({"model": state}, {"model": copy})


def test_bytes_count_elements_by_their_size() -> None:
    assert num_bytes({"a": {"w": torch.zeros(3, 2)}, "b": {"n": torch.tensor(1)}}) == 24 + 8

"""What goes onto a wire comes off it: exactly as bytes, within the stated error when rounded."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedrad.core.wire import (
    PRECISIONS,
    TYPES,
    Precision,
    decode,
    encode,
    from_bytes,
    to_bytes,
)
from fedrad.errors import TrainingDivergedError

finite = arrays(
    np.float32,
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    elements=st.floats(-65504, 65504, width=32),
)


def sent(x: torch.Tensor, precision: Precision) -> torch.Tensor:
    """What the other side reads."""
    return decode("z", encode("z", x, precision))


def largest_of_channel(x: torch.Tensor) -> torch.Tensor:
    """The largest |x| of each element's channel, in x's shape."""
    if x.dim() < 2 or not x.numel():
        return x.abs().max().expand_as(x) if x.numel() else x
    axes = [axis for axis in range(x.dim()) if axis != 1]
    return x.abs().amax(axes, keepdim=True).expand_as(x)


@given(finite)
def test_float32_is_exact(values: np.ndarray) -> None:
    x = torch.from_numpy(values)
    assert torch.equal(sent(x, "float32"), x)


@given(finite)
def test_float16_is_within_half_a_step_of_eleven_bits(values: np.ndarray) -> None:
    """11 significant bits: half a step is |x| / 2^11 at most; below 2^-14 steps are 2^-24."""
    x = torch.from_numpy(values).double()
    error = (sent(x, "float16").double() - x).abs()
    assert bool((error <= torch.clamp_min(x.abs() / 2**11, 2.0**-25)).all())


@given(finite)
@settings(max_examples=300)
def test_int8_is_within_half_a_level_of_its_channel(values: np.ndarray) -> None:
    """127 levels a side: half a level is a / 254; float32 division and product add under 1 / 10."""
    x = torch.from_numpy(values)
    error = (sent(x, "int8").double() - x.double()).abs()
    bound = torch.clamp_min(largest_of_channel(x).double() / 253.9, 2.0**-127)
    assert bool((error <= bound).all())


def test_int8_reaches_its_bound() -> None:
    """A value in the middle between two levels is off by half a level: the bound is no wider."""
    x = torch.tensor([127.0, 63.5])
    assert (sent(x, "int8") - x).abs().max().item() == 0.5


def test_a_channel_of_large_values_does_not_coarsen_its_neighbour() -> None:
    x = torch.stack([torch.linspace(0, 1000, 20), torch.linspace(0, 1, 20)], dim=1)
    assert (sent(x, "int8") - x)[:, 1].abs().max().item() <= 1 / 253.9


@pytest.mark.parametrize("precision", PRECISIONS)
def test_zeros_stay_zeros_and_shapes_stay_shapes(precision: Precision) -> None:
    for shape in [(), (3,), (2, 3), (0, 4, 2), (2, 3, 4, 5)]:
        assert torch.equal(sent(torch.zeros(shape), precision), torch.zeros(shape))


def test_bytes_on_the_wire_are_those_of_the_precision() -> None:
    """[2, 3, 4]: 24 elements; int8 adds a float32 for each of 3 channels."""
    x = torch.ones(2, 3, 4)
    sizes = {
        precision: sum(len(to_bytes(t)[2]) for t in encode("z", x, precision).values())
        for precision in PRECISIONS
    }
    assert sizes == {"float32": 96, "float16": 48, "int8": 24 + 12}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_numbers_that_are_not_finite_are_refused_where_they_cannot_be_sent(
    precision: Precision, bad: float
) -> None:
    with pytest.raises(
        TrainingDivergedError, match=r"'z' holds numbers that are not finite.*send float32"
    ):
        encode("z", torch.tensor([[0.0, bad]]), precision)


def test_float16_refuses_what_would_become_infinite() -> None:
    with pytest.raises(TrainingDivergedError, match="65504"):
        encode("z", torch.tensor([70000.0]), "float16")


def test_large_finite_numbers_whose_sum_overflows_are_not_refused() -> None:
    x = torch.full((4,), 3e38)
    assert bool(sent(x, "int8").isfinite().all())


def test_no_gradient_goes_along() -> None:
    assert not encode("z", torch.ones(2, requires_grad=True), "float32")["z"].requires_grad


@given(
    st.sampled_from(sorted(TYPES)),
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    st.integers(0, 2**32 - 1),
)
def test_bytes_are_exact_for_every_type(name: str, shape: tuple[int, ...], seed: int) -> None:
    """Bit patterns and not values are compared, so NaN and -0 count too."""
    draws = torch.Generator().manual_seed(seed)
    count, size = math.prod(shape), TYPES[name].itemsize
    high = 2 if name == "bool" else 256
    bits = torch.randint(0, high, (count * size,), dtype=torch.uint8, generator=draws)
    x = bits.view(TYPES[name]).reshape(shape)
    dtype, sides, raw = to_bytes(x)
    assert (dtype, sides, len(raw)) == (name, shape, count * size)
    assert to_bytes(from_bytes(dtype, sides, raw)) == (name, shape, raw)


def test_a_tensor_that_is_no_row_of_memory_is_sent_in_its_own_order() -> None:
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3).T
    assert torch.equal(from_bytes(*to_bytes(x)), x)


@pytest.mark.parametrize(
    ("dtype", "shape", "raw", "reason"),
    [
        ("object", (1,), b"\0", "type 'object' is not one of"),
        ("float32", (2, 2), b"\0" * 15, r"float32 \[2, 2\] is 16 bytes; found 15"),
        ("float32", (2, 2), b"\0" * 17, "found 17"),
        ("float32", (-1, -4), b"\0" * 16, "negative side"),
        ("int8", (2**40,), b"", "is 1099511627776 bytes; found 0"),
        ("int8", (0, 2**63), b"", "a shape is larger than a tensor can be"),
        ("int8", (2**62, 0, 4), b"", "a shape is larger than a tensor can be"),
    ],
)
def test_bytes_that_are_not_what_they_say_are_refused(
    dtype: str, shape: tuple[int, ...], raw: bytes, reason: str
) -> None:
    """Before anything of the claimed size is allocated."""
    with pytest.raises(ValueError, match=reason):
        from_bytes(dtype, shape, raw)

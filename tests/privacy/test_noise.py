"""Random numbers of a key: their distribution, and that they have nothing else in common."""

import numpy as np
import pytest
from scipy import stats

from fedrad.privacy.noise import SecureGenerator

KEY, OTHER = bytes(32), bytes([1]) + bytes(31)


def test_numbers_are_normal_out_to_the_tails() -> None:
    """Kolmogorov and Smirnov over all, and the share beyond four standard deviations."""
    drawn = SecureGenerator(KEY, "noise").normal(2_000_001)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    beyond = (np.abs(drawn) > 4).sum()  # 6.3e-5 of them: 127, with a spread of 11
    assert 80 < beyond < 175
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / 2e6**0.5


def test_a_key_fixes_a_stream_and_another_key_or_purpose_makes_another() -> None:
    """A simulation can be repeated; a hospital's key is never known."""
    again = SecureGenerator(KEY, "noise").uniform(1000)
    assert np.array_equal(SecureGenerator(KEY, "noise").uniform(1000), again)
    for stream in (SecureGenerator(OTHER, "noise"), SecureGenerator(KEY, "samples")):
        assert abs(np.corrcoef(stream.uniform(1000), again)[0, 1]) < 0.15


def test_a_stream_goes_on_and_never_repeats() -> None:
    """The second step's noise must not be the first's."""
    stream = SecureGenerator(KEY, "noise")
    assert not np.array_equal(stream.normal(10), stream.normal(10))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_each_place_is_drawn_with_the_rate(rate: float) -> None:
    """Rate 1 draws all, which is no sampling, and 0 none."""
    drawn = SecureGenerator(KEY, "samples").chosen(10_000, rate)
    assert abs(len(drawn) - 10_000 * rate) <= 4 * (10_000 * rate * (1 - rate)) ** 0.5
    assert np.array_equal(drawn, np.unique(drawn))

"""Distance correlation: equal to its definition, 1 for a copy, about 0 for what is independent."""

import pytest
import torch

from fedrad.metrics import dependence
from fedrad.metrics.dependence import distance_correlation
from fedrad.training import nopeek


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_definition(x: torch.Tensor, z: torch.Tensor) -> float:
    """Definition 3 of the 2007 paper: the doubly centred distance matrices, element by element."""
    n = len(x)
    centred = []
    for values in (x.double(), z.double()):
        d = torch.tensor([[float((a - b).norm()) for b in values] for a in values])
        centred.append(d.double() - d.mean(0) - d.mean(1)[:, None] + d.mean())
    a, b = centred
    products = [(u * v).sum().item() / n**2 for u, v in ((a, b), (a, a), (b, b))]
    return (products[0] / (products[1] * products[2]) ** 0.5) ** 0.5


def test_it_is_its_definition() -> None:
    x = normal(12, 3)
    z = x[:, :2].square() + 0.3 * normal(12, 2, seed=1)
    assert distance_correlation(x, z).plain == pytest.approx(by_definition(x, z), abs=1e-6)


def test_it_is_that_of_the_penalty_that_trains_against_it() -> None:
    x, z = normal(40, 2, 5, 5), normal(40, 7, seed=1)
    penalty = nopeek.sample_distance_correlation(x, z).item()
    assert distance_correlation(x, z).plain == pytest.approx(penalty, abs=1e-5)


def test_a_copy_turned_moved_and_scaled_has_one() -> None:
    x = normal(60, 4)
    turn = torch.linalg.qr(normal(4, 4, seed=2))[0]
    found = distance_correlation(x, 3 * x @ turn - 5)
    assert found.plain == pytest.approx(1, abs=1e-5)
    assert found.corrected == pytest.approx(1, abs=1e-5)


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x, z = normal(50, 3), normal(50, 3, seed=1).exp()
    whole = distance_correlation(x, z)
    monkeypatch.setattr(dependence, "_BLOCK", 7)
    found = distance_correlation(x, z)
    assert (found.plain, found.corrected) == pytest.approx((whole.plain, whole.corrected))


def test_of_independent_samples_the_corrected_one_is_about_zero_and_the_plain_one_is_not() -> None:
    """30 pairs of 200 coordinates: the plain one is near 1 by chance alone.

    The corrected one's mean over 40 draws is within 3 standard errors of 0.
    """
    draws = [
        distance_correlation(normal(30, 200, seed=k), normal(30, 200, seed=1000 + k))
        for k in range(40)
    ]
    corrected = torch.tensor([found.corrected for found in draws])
    assert abs(corrected.mean()) < 3 * corrected.std() / 40**0.5
    assert min(found.plain for found in draws) > 0.8


def test_it_sees_a_dependence_without_correlation() -> None:
    """x and x squared are uncorrelated for a symmetric x, and depend on each other."""
    x = normal(300, 1)
    assert distance_correlation(x, x.square()).corrected > 0.1


def test_a_constant_tells_nothing() -> None:
    found = distance_correlation(normal(20, 4), torch.ones(20, 9))
    assert (found.plain, found.corrected) == (0.0, 0.0)


@pytest.mark.parametrize("other", [3, 5])
def test_pairs_that_are_too_few_or_no_pairs_are_refused(other: int) -> None:
    with pytest.raises(ValueError, match="4 or more pairs, found 3 and"):
        distance_correlation(normal(3, 2), normal(other, 2))

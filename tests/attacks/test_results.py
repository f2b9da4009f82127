"""Cells and tables that are added up over sites: none may count what its site does not have."""

import pytest
import torch
from torch import Tensor

from fedrad.core.state import State
from fedrad.deployment.coordinator.result_checks import implausible_result

IMAGES, PATIENTS = 24, 20


def honest() -> State:
    """What a site of 24 images of 20 patients may tell; an array of each kind."""
    cells = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    cells[0, 0, 0] = torch.tensor([-72.0, -1.0, -2.5, 8.0])
    cells[0, 0, 1] = torch.tensor([-1.0, 72.0, 0.5, 6.0])
    cells[0, 1, 0] = torch.tensor([-72.0, 72.0, 1.5, 10.0])
    return {
        "cells": cells,
        "counts": torch.tensor([[14, 10, 12, 9]]),
        "decided": torch.tensor([[0.25, 0.75]]),
        "denominators/accuracy": torch.tensor([24.0]),
        "fullest": torch.tensor([[3.0, 0.5]]),
        "parts/auroc": torch.tensor([[0.8], [0.01]]),
        "size": torch.tensor([IMAGES, PATIENTS, 5]),
        "table/confusion": torch.tensor([10.0, 4.0, 2.0, 8.0]),
        "told/auroc": torch.tensor([0]),
    }


def test_an_honest_result_is_likely_and_so_is_one_that_tells_little() -> None:
    assert implausible_result(honest(), IMAGES, PATIENTS) is None
    assert implausible_result({}, IMAGES, PATIENTS) is None
    withheld = honest() | {
        "cells": torch.zeros(1, 2, 4, 4),
        "counts": torch.tensor([[-1, -1, -1, -1]]),
        "table/confusion": torch.full((4,), -1.0),
    }
    assert implausible_result(withheld, IMAGES, PATIENTS) is None


def put(array: Tensor, place: tuple[int, ...], value: float) -> Tensor:
    """A copy of an array with another value in one place."""
    other = array.clone()
    other[place] = value
    return other


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("cells", (0, 0, 0, 3), 1e12), ("cells", (0, 0, 0, 3), 9.0), ("cells", (0, 1, 3, 3), -1.0),
        ("cells", (0, 0, 1, 3), 5.5), ("cells", (0, 0, 0, 2), 3.0), ("cells", (0, 0, 0, 0), 1e9),
        ("cells", (0, 0, 0, 1), -72.0), ("counts", (0, 0), 15), ("counts", (0, 3), 10**12),
        ("counts", (0, 2), -2), ("decided", (0, 0), 1.5), ("decided", (0, 1), -0.1),
        ("denominators/accuracy", (0,), -1.0), ("fullest", (0, 1), 2.0), ("fullest", (0, 0), 1e9),
        ("size", (0,), 25), ("size", (0,), -1), ("size", (1,), 21), ("size", (2,), 0),
        ("denominators/accuracy", (0,), 1e12), ("denominators/accuracy", (0,), 25.0),
        ("parts/auroc", (0, 0), 1.5), ("parts/auroc", (0, 0), -1e12),
        ("table/confusion", (0,), 1e12), ("table/confusion", (0,), 11.0),
        ("table/confusion", (0,), -5.0), ("told/auroc", (0,), 9), ("told/auroc", (0,), -1),
    ],
)  # fmt: skip
def test_a_result_that_cannot_be_true_is_named_by_its_array(
    name: str, place: tuple[int, ...], value: float
) -> None:
    """A pooled value is made of these: one site's million images would be all of it."""
    found = honest()
    said = implausible_result(found | {name: put(found[name], place, value)}, IMAGES, PATIENTS)
    assert said is not None and said.startswith(name)


@pytest.mark.parametrize("name", ["cells", "counts", "fullest"])
def test_an_array_of_another_shape_is_named(name: str) -> None:
    said = implausible_result(honest() | {name: torch.ones(5)}, IMAGES, PATIENTS)
    assert said is not None and said.startswith(name)

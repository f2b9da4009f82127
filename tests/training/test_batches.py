import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedrad.data.base import SiteData
from fedrad.training.batches import model_input, orders, reader


def site(x: np.ndarray, rows: list[int]) -> SiteData:
    y = np.arange(len(x), dtype=np.float32)[:, None]
    patient = np.arange(len(x), dtype=np.uint64)
    return SiteData("nord", x, y, patient, {"train": np.array(rows, dtype=np.int64)})


@given(images=st.integers(1, 40), batch=st.integers(1, 20), steps=st.integers(0, 30))
def test_orders_are_whole_epochs_that_make_the_steps(images: int, batch: int, steps: int) -> None:
    """Every epoch but the last names each image once; the last names none twice."""
    epochs = [order.tolist() for order in orders(images, batch, steps, seed=3)]
    assert sum(-(-len(epoch) // batch) for epoch in epochs) == steps
    assert all(sorted(epoch) == list(range(images)) for epoch in epochs[:-1])
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)


def test_more_steps_go_on_where_fewer_stop() -> None:
    """So a longer budget sees the same images first."""
    few = torch.cat(list(orders(10, 4, 5, seed=1)))
    many = torch.cat(list(orders(10, 4, 9, seed=1)))
    assert torch.equal(many[: len(few)], few)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_batch_holds_the_images_and_labels_of_its_places(device: str) -> None:
    """Places count within the split, rows within the source."""
    x = np.arange(10 * 4, dtype=np.uint8).reshape(10, 1, 2, 2)
    read = reader(site(x, [1, 4, 5, 9]), "train", torch.device(device))
    found = list(read(torch.tensor([3, 0, 2]), 2))
    assert [y.flatten().tolist() for _, y in found] == [[9, 1], [5]]
    assert np.array_equal(found[0][0].cpu().numpy(), x[[9, 1]])


def test_images_may_stay_in_a_read_only_file(tmp_path: Path) -> None:
    """The cache is a memory-mapped file; torch warns of read-only arrays, so a batch is its own."""
    np.save(tmp_path / "x.npy", np.full((4, 1, 2, 2), 5, dtype=np.uint8))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((batch, _),) = reader(site(x, [2, 3]), "train", torch.device("cpu"))(torch.arange(2), 2)
    batch.fill_(9)
    assert x.max() == 5


def test_pixels_are_centred_and_tables_are_as_they_are() -> None:
    """0 to 255 is -2 to 2: about unit spread on a chest film."""
    table = torch.tensor([[60.0, 0.5]])
    assert model_input(table) is table
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(model_input(pixels).flatten(), torch.tensor([-2.0, -1.2, 2.0]))


def test_augmentation_sees_grey_values_from_0_to_1() -> None:
    """Gamma and noise are defined there."""
    seen = []

    def look(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append((x.min().item(), x.max().item()))
        return 1 - x

    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    assert model_input(pixels, look, torch.Generator()).flatten().tolist() == [2, -2]
    assert seen == [(0, 1)]

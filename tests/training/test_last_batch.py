"""A last batch of one image, which batch norm cannot take or makes another network of."""

import pytest
import torch

from fedrad.assemble import check_last_batch, local_task, model_of
from fedrad.config import from_text
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError
from fedrad.training.last_batch import batch_of_one

TEXT = """
name: tiny
task: {{name: binary, labels: [lesion], input: [1, {size}, {size}]}}
data: phantom
model: {{name: resnet18, norm: {norm}}}
local: {{{length}, batch: 16}}
rounds: 1
algorithm: fedavg
"""


def arm(size: int = 32, norm: str = "batch", length: str = "epochs: 1"):
    return from_text(TEXT.format(size=size, norm=norm, length=length)).arm("fedavg")


def test_the_rule_says_just_when_a_batch_of_one_is_met() -> None:
    """By counting the batches themselves: 1 + (n - 1) // b an epoch, the last of n mod b."""
    for images in range(1, 40):
        for batch in range(1, 20):
            sizes = [min(batch, images - at) for at in range(0, images, batch)]
            for steps in range(1, len(sizes) + 2):
                met = 1 in (sizes * 2)[:steps]
                assert batch_of_one(images, batch, steps) == met, (images, batch, steps)


def test_what_torch_cannot_train_is_refused_with_the_site_and_three_ways_out() -> None:
    with pytest.raises(
        ConfigError, match=r"nord: 17 training images leave a last batch of one.*local.batch.*group"
    ):
        check_last_batch(arm(), "nord", 17, 2)
    model = model_of(arm()).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize(
    ("made", "images", "steps"),
    [(arm(), 18, 2), (arm(norm="group"), 17, 2), (arm(length="steps: 1"), 17, 1), (arm(), 0, 0)],
)
def test_everything_else_trains_as_before(made, images, steps) -> None:
    assert check_last_batch(made, "nord", images, steps) is None


def test_a_larger_image_trains_and_looks_odd() -> None:
    """At 64 x 64 four places are left of an image, and their mean is taken."""
    found = check_last_batch(arm(size=64), "nord", 17, 2)
    assert found is not None and (found.site, found.rule) == ("nord", "batch-of-one")


def test_a_hospital_refuses_before_it_trains() -> None:
    """Its images are known to it alone, so the researcher's check cannot tell it."""
    y = torch.zeros(17, 1).numpy()
    rows = {
        "train": y[:, 0].nonzero()[0],
        "val": y[:, 0].nonzero()[0],
        "test": y[:, 0].nonzero()[0],
    }
    rows["train"] = torch.arange(17).numpy()
    films = torch.zeros(17, 1, 32, 32, dtype=torch.uint8).numpy()
    data = SiteData("nord", films, y, torch.arange(17).numpy().astype("uint64"), rows)
    with pytest.raises(ConfigError, match="nord: 17 training images leave a last batch of one"):
        local_task(arm(), data, model_of(arm()), seed=0, device=torch.device("cpu"))

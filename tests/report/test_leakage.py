"""What a cut leaks is measured on images that the attacker did not have, and told as it is."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from example_results import example

from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.assemble import initial_state
from fedrad.config import Experiment, from_text
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.report.leakage import LabelledImages, _samples, measure
from fedrad.report.leakage_panel import leakage
from fedrad.report.page import render

TEXT = """
name: leak
task: {name: multilabel, labels: [nodule, effusion], input: [1, 16, 16]}
data: {name: phantom}
model: {name: cnn, width: 4}
local: {epochs: 1, batch: 8, optimizer: {name: sgd, lr: 0.1}}
rounds: 1
replicates: 0
metrics: [auroc]
algorithm: {name: splitfed, version: 1, cut: stem}
"""
PLAIN = from_text(TEXT)


def experiment(**changes: object) -> Experiment:
    return Experiment.model_validate(PLAIN.model_dump() | changes)


def site(name: str, images: int) -> SiteData:
    """Flat images, each with its own number as grey value, so that each can be told."""
    first = 100 * len(name)
    x = np.arange(first, first + 2 * images, dtype=np.uint8)[:, None, None, None]
    x = np.ascontiguousarray(np.broadcast_to(x, (2 * images, 1, 16, 16)))
    y = np.stack([np.arange(2 * images) % 2, np.arange(2 * images) % 3 == 0], 1).astype(np.float32)
    rows = np.arange(2 * images)
    split = {"train": rows[:images], "val": rows[:0], "test": rows[images:]}
    return SiteData(name, x, y, rows.astype(np.uint64), split)


def sample(images: int, seed: int) -> LabelledImages:
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(images, 1, 4, 4, generator=draws)
    x = (torch.nn.functional.interpolate(coarse, 16) * 255).round().byte()
    y = torch.stack([coarse.mean((1, 2, 3)) > 0.5, coarse[:, 0, 0, 0] > 0.8], 1).float()
    return LabelledImages(x, y)


def found(
    arm: Experiment | None = None, plan: CutPlan | None = None, steps: int = 100
) -> dict[str, Any]:
    """What a cut leaks, by a decoder of so many steps."""
    arm, plan = arm or experiment(), plan or CutPlan("stem")
    start, own, others = initial_state(arm, 0), sample(40, 0), sample(30, 1)
    return measure(arm, plan, start, own, others, seed=0, steps=steps)


@pytest.fixture(scope="module")
def measured() -> dict:
    return found()


def test_the_attackers_images_are_no_images_that_are_attacked() -> None:
    """The last site's training images, against test images of all others."""
    own, others, told = _samples(Federation({name: site(name, 20) for name in ("a", "bb")}, ()))
    assert set(own.x.flatten().tolist()) == set(range(200, 220))
    assert set(others.x.flatten().tolist()) == set(range(120, 140))
    assert told == {"attacker": "bb, train", "attacked": "a, test"}


def test_a_site_alone_is_attacked_with_its_own_training_images() -> None:
    own, others, _ = _samples(Federation({"a": site("a", 20)}, ()))
    assert not set(own.x.flatten().tolist()) & set(others.x.flatten().tolist())


def test_an_early_cut_leaks_images_and_the_last_layer_leaks_labels(measured: dict) -> None:
    """One convolution: nearly the image. One linear layer: its gradient is p - y, turned.

    With one logit the direction would tell all; with two findings it tells most.
    """
    assert measured["distance_correlation"]["corrected"] > 0.5
    drawn = measured["reconstruction"]
    assert drawn["ssim"] > drawn["guess_ssim"] and drawn["psnr"] > drawn["guess_psnr"] + 2
    assert measured["labels"]["findings"]["nodule"]["direction"] > 0.8


def test_the_numbers_are_plain_and_the_same_again() -> None:
    one, again = (found(steps=3) for _ in range(2))
    assert json.dumps(again, allow_nan=False) == json.dumps(one)


def test_pictures_are_shown_of_generated_images_only() -> None:
    """The same images said to be of a hospital: the same numbers, and no picture."""
    made = found(steps=3)
    real = found(experiment(data={"name": "npz", "file": "x.npz"}), steps=3)
    assert made["pictures"] and real["pictures"] == []
    assert real["reconstruction"] == made["reconstruction"]


def test_noise_on_the_activations_lowers_what_is_measured(measured: dict) -> None:
    noisy = found(plan=CutPlan("stem", noise=10.0))
    assert noisy["reconstruction"]["psnr"] < measured["reconstruction"]["psnr"] - 3
    assert (
        noisy["distance_correlation"]["corrected"]
        < measured["distance_correlation"]["corrected"] - 0.3
    )


def test_labels_that_are_sent_are_not_attacked() -> None:
    labels = found(plan=CutPlan("stem", shape="labels_at_server"), steps=3)["labels"]
    assert labels["sent"] and labels["findings"] == {}


def test_the_page_shows_it_and_says_why_it_is_missing(measured: dict) -> None:
    results = copy.deepcopy(example())
    assert leakage(results) is None and 'id="leakage"' not in render(results)
    told = {"attacker": "sued, train", "attacked": "nord, test"}
    results["arms"][0]["leakage"] = told | measured
    results["arms"][1]["leakage"] = {"cut": "layer1", "reason": "the fronts are private"}
    page = render(results)
    assert 'id="leakage"' in page and "not measured: the fronts are private" in page
    assert page.count('<img src="data:image/png;base64,') == 2 * len(measured["pictures"])
    assert "inverse network (He, Zhang, Lee, ACSAC 2019)" in page
    assert "sued, train" in page

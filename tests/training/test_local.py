from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.core.seeds import seed
from fedrad.core.state import State, clone, is_bit_identical
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError, PolicyError, TrainingDivergedError
from fedrad.metrics.calibration import brier
from fedrad.metrics.site_result import hospital_disclosure
from fedrad.models import MODELS
from fedrad.training.local import LocalTask

TASK = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
BRIER = brier(TASK)


def site(name: str = "nord", train: int = 22, seed: int = 0) -> SiteData:
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    y = generator.integers(0, 2, (60, 1)).astype(np.float32)
    rows = {"train": np.arange(train), "val": np.arange(30, 40), "test": np.arange(40, 60)}
    return SiteData(name, x, y, (np.arange(60) // 2).astype(np.uint64), rows)


def network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), *layers, nn.ReLU(), nn.Linear(5, 1))


def local(**changes: Any) -> LocalTask:
    given: dict[str, Any] = {
        "site": "nord",
        "seed": 7,
        "task": TASK,
        "data": site(),
        "model": network(),
        "initial": lambda: network().state_dict(),
        "metrics": (BRIER,),
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "batch": 5,
        "epochs": None if "steps" in changes else 2,
    }
    return LocalTask(**(given | changes))


def start(*layers: nn.Module) -> State:
    return network(*layers).state_dict()


def equal(one: State, other: State) -> bool:
    return is_bit_identical({"model": one}, {"model": other})


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        ({"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, torch.optim.SGD),
        ({"name": "adam", "lr": 0.01}, torch.optim.Adam),
        ({"name": "adamw", "lr": 0.01, "weight_decay": 0.1}, torch.optim.AdamW),
    ],
)
def test_a_fit_is_a_plain_loop_over_shuffled_batches(
    optimizer: dict[str, Any], theirs: Any
) -> None:
    """Written out with torch's own optimiser and loss: 2 epochs of 22 images, 5 a batch."""
    fitted = local(optimizer=optimizer).fit(start(), round=3)
    model, data = network(), site()
    options = {key: value for key, value in optimizer.items() if key != "name"}
    step = theirs(model.parameters(), **options)
    generator = torch.Generator().manual_seed(seed(7, "nord", 3, "shuffle"))
    losses = []
    for _ in range(2):
        for index in torch.randperm(22, generator=generator).split(5):
            x = (torch.from_numpy(data.x[index.numpy()]).float() / 255 - 0.5) / 0.25
            y = torch.from_numpy(data.y[index.numpy()])
            loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
            step.zero_grad()
            loss.backward()
            step.step()
            losses.append(loss.item())
    torch.testing.assert_close(fitted.state, dict(model.state_dict()), atol=1e-6, rtol=1e-5)
    assert (fitted.examples, fitted.steps) == (22, 10)
    assert fitted.loss == pytest.approx(np.mean(losses), abs=1e-6)


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Dropout(0.5), nn.BatchNorm1d(5)])
def test_the_same_arguments_give_the_same_bits_whatever_ran_before(layer: nn.Module) -> None:
    """Sites share the model of their process, in an order that nobody fixes."""
    model, initial = network(layer), clone(start(layer))
    task = local(model=model, augment=noise)
    first = task.fit(initial, round=1)
    other = local(site="sued", data=site("sued", seed=1), model=model, batch=4)
    other.fit(first.state, round=2)
    other.predict(first.state, split="test")
    torch.randn(3)
    torch.manual_seed(99)
    again = task.fit(initial, round=1)
    fresh = local(model=network(layer), augment=noise).fit(initial, round=1)
    assert equal(first.state, again.state) and equal(first.state, fresh.state)
    assert first.loss == again.loss == fresh.loss


def test_training_leaves_the_global_random_numbers_alone() -> None:
    """Otherwise what a process draws next would depend on how many sites it had trained."""
    task, initial = local(model=network(nn.Dropout(0.5))), start(nn.Dropout(0.5))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    task.fit(initial, round=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("changes", "round"), [({"seed": 8}, 1), ({"site": "sued"}, 1), ({}, 2)])
def test_seed_site_and_round_each_change_orders_and_augmentations(
    changes: dict[str, Any], round: int
) -> None:
    """And nothing else does: not the arm, not the optimiser."""

    def seen(round: int, **options: Any) -> tuple[list[float], list[float]]:
        first, drawn = [], []

        def look(x: Tensor, generator: torch.Generator) -> Tensor:
            first.append(x[0, 0, 0, 0].item())
            drawn.append(torch.rand((), generator=generator).item())
            return x

        local(augment=look, **options).fit(start(), round=round)
        return first, drawn

    orders, augmentations = seen(1)
    other_orders, other_augmentations = seen(round, **changes)
    assert orders != other_orders and augmentations != other_augmentations
    assert (orders, augmentations) == seen(1, optimizer={"name": "adam"}, clip=1.0)


def test_neither_the_start_nor_the_result_is_touched_later() -> None:
    """In process, messages go by reference."""
    task, initial = local(), start()
    fitted = task.fit(initial, round=1)
    kept = clone(fitted.state)
    assert equal(initial, start())
    task.fit(fitted.state, round=2)
    assert equal(fitted.state, kept)


def test_epochs_are_as_many_steps_as_their_batches() -> None:
    """22 images in batches of 5 are 5 steps, the last with 2 images."""
    by_epochs, by_steps = local(epochs=3), local(steps=15)
    assert by_epochs.steps_per_round() == by_steps.steps_per_round() == 15
    assert equal(by_epochs.fit(start(), round=1).state, by_steps.fit(start(), round=1).state)


def test_several_rounds_in_one_go_take_their_steps() -> None:
    """For arms that exchange nothing."""
    assert local(steps=3).fit(start(), round=1, rounds=4).steps == 12
    assert local(epochs=1).fit(start(), round=1, rounds=4).steps == 20
    longer = local(steps=12).fit(start(), round=1)
    assert equal(local(steps=3).fit(start(), round=1, rounds=4).state, longer.state)


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"steps": 4}])
def test_a_site_without_training_images_returns_the_start(budget: dict[str, int]) -> None:
    """It can still evaluate; its weight in a mean is 0."""
    task = local(data=site(train=0), **budget)
    fitted = task.fit(start(), round=1)
    assert equal(fitted.state, start())
    assert (fitted.examples, fitted.steps, fitted.loss, task.steps_per_round()) == (0, 0, 0.0, 0)


def test_a_penalty_or_correction_of_zero_changes_no_bit() -> None:
    """FedProx with mu = 0 and SCAFFOLD's first round are FedAvg."""
    plain = local().fit(start(), round=1)
    zero = {name: torch.zeros_like(value) for name, value in start().items()}
    corrected = local().fit(start(), round=1, correction=zero)
    penalised = local().fit(start(), round=1, penalty=lambda now, then: 0 * now[0].sum())
    assert equal(plain.state, corrected.state) and equal(plain.state, penalised.state)


def test_a_correction_goes_by_the_parameter_s_name() -> None:
    """With lr 1 and gradients clipped away, one step subtracts exactly the correction."""
    task = local(steps=1, clip=1e-12, optimizer={"name": "sgd", "lr": 1.0})
    before = start()
    correction = {name: torch.full_like(v, float(i)) for i, (name, v) in enumerate(before.items())}
    shuffled = dict(reversed(correction.items()))
    after = task.fit(before, round=1, correction=shuffled).state
    for name, value in before.items():
        torch.testing.assert_close(after[name], value - correction[name], atol=1e-6, rtol=0)


def test_frozen_parameters_stay() -> None:
    """What does not require a gradient is no parameter of the site's training."""
    model = network()
    model[1].requires_grad_(False)
    after = local(model=model).fit(start(), round=1).state
    assert torch.equal(after["1.weight"], start()["1.weight"])
    assert not torch.equal(after["3.weight"], start()["3.weight"])


@pytest.mark.parametrize("lr", [1e38, 1e20])
def test_training_that_diverges_says_where(lr: float) -> None:
    """A server must not average a nan into everyone's model."""
    with pytest.raises(
        TrainingDivergedError, match=r"nord: round 4: .* after 10 steps; lower the learn"
    ):
        local(optimizer={"name": "sgd", "lr": lr}).fit(start(), round=4)


def test_class_weights_change_the_training() -> None:
    """Weights of 1 do not."""
    plain = local().fit(start(), round=1)
    ones = local(weights=torch.ones(1, 2)).fit(start(), round=1)
    heavy = local(weights=torch.tensor([[1.0, 5.0]])).fit(start(), round=1)
    assert equal(plain.state, ones.state) and not equal(plain.state, heavy.state)


def test_labels_are_counted_over_the_training_images() -> None:
    positive = float(site().y[:22].sum())
    assert local().label_counts().tolist() == [[22 - positive, positive]]
    assert (local().examples, local().patients) == (22, 11)


def drawn(task: LocalTask, split: str = "test") -> Any:
    return task.tell(task.predict(start(), split=split), split=split, draws=20).parts["brier"]


def test_draws_are_the_same_in_every_arm_and_seed() -> None:
    """A paired comparison needs the same patients on both sides; another site has its own."""
    one, other = drawn(local()), drawn(local(seed=8, batch=9, epochs=1))
    elsewhere = drawn(local(site="sued"))
    assert one.shape == (21, 1) and (one == other).all()
    assert one[0] == elsewhere[0] and not (one == elsewhere).all()


def test_a_hospital_s_draws_depend_on_its_secret_and_its_data() -> None:
    """Nobody else can make them, and those of two versions of the data have nothing in common."""
    one, other = drawn(local(secret=b"one")), drawn(local(secret=b"other"))
    assert one[0] == other[0] and not np.isclose(one[1:], other[1:]).any()
    changed = site()
    changed.y[0] = 1 - changed.y[0]  # a training label: the test images are the same
    again = drawn(local(secret=b"one", data=changed))
    assert one[0] == again[0] and not np.isclose(one[1:], again[1:]).any()


def test_augmentation_is_for_training_only() -> None:
    plain = local().predict(start(), split="val")
    assert (plain == local(augment=noise).predict(start(), split="val")).all()


def test_label_counts_of_few_patients_are_refused() -> None:
    """Global class weights need them exactly, so the site takes no part rather than tell."""
    few = site()
    few.y[:22] = 0
    few.y[:2] = 1  # one patient, two images
    hospital = local(data=few, disclosure=hospital_disclosure())
    with pytest.raises(PolicyError, match="fewer than 5 patients have one of them here"):
        hospital.told_label_counts()
    # Its own weights are made of them at home.
    assert hospital.label_counts().tolist() == [[20, 2]]
    assert local(data=few).told_label_counts().tolist() == [[20, 2]]


def test_of_patients_under_a_promise_of_privacy_no_labels_are_told_in_any_experiment() -> None:
    """An arm without noise, or another experiment, would else tell what noise was to hide."""
    promised = replace(hospital_disclosure(), training_labels=False)
    with pytest.raises(PolicyError, match="under a promise of privacy"):
        local(disclosure=promised).told_label_counts()


def test_the_initial_weights_are_the_run_s() -> None:
    """Every site asks the same function, so all start alike without a message."""
    assert equal(local().initial(), start())


def test_an_optimizer_that_is_unknown_or_misspelt_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"local\.optimizer: 'sdg' is not one .*did you mean 'sgd'"
    ):
        local(optimizer={"name": "sdg"}).fit(start(), round=1)
    with pytest.raises(ConfigError, match=r"local\.optimizer\.learn: sgd takes lr"):
        local(optimizer={"name": "sgd", "learn": 1}).fit(start(), round=1)
    with pytest.raises(ValueError, match="set one of epochs and steps"):
        local(steps=1, epochs=1)


def images_task(**changes: Any) -> tuple[LocalTask, State]:
    torch.manual_seed(0)
    model = MODELS["cnn"](TASK, width=8)
    return local(model=model, **changes), clone(model.state_dict())


def test_the_layout_of_images_changes_results_by_rounding_alone() -> None:
    """And kernels do lie with their channels innermost."""
    plain, initial = images_task()
    last, _ = images_task(channels_last=True)
    found = last.fit(initial, round=1)
    kernel = found.state["layer1.0.weight"]
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    torch.testing.assert_close(found.state, plain.fit(initial, round=1).state, atol=1e-5, rtol=0)


def test_a_forward_pass_in_bfloat16_leaves_float32_weights_near_those_of_float32() -> None:
    """bfloat16 has 8 bits: the weights differ, by less than a hundredth after 10 steps."""
    plain, initial = images_task(optimizer={"name": "sgd", "lr": 0.01})
    half, _ = images_task(optimizer={"name": "sgd", "lr": 0.01}, precision=torch.bfloat16)
    one, other = plain.fit(initial, round=1), half.fit(initial, round=1)
    assert all(value.dtype == torch.float32 for value in other.state.values())
    assert not equal(one.state, other.state)
    torch.testing.assert_close(one.state, other.state, atol=1e-2, rtol=0)


def test_another_sites_task_is_as_if_made_anew() -> None:
    """The network is shared, and nothing else of the first site remains."""
    first = local()
    first.fit(start(), round=1)
    other = site("ost", train=13, seed=1)
    moved, anew = first.at(other), local(site="ost", data=other)
    assert moved.model is first.model and moved.site == "ost"
    assert equal(moved.fit(start(), round=2).state, anew.fit(start(), round=2).state)


def test_a_small_cnn_learns_what_can_be_seen() -> None:
    """Bright and dark images are told apart; the loss falls from log 2 to nearly nothing."""
    data = site()
    data = replace(data, x=(data.x // 2 + 127 * data.y.astype(np.uint8)[:, :, None, None]))
    torch.manual_seed(0)
    model = MODELS["cnn"](TASK, width=4)
    initial = clone(model.state_dict())
    task = local(data=data, model=model, steps=60, optimizer={"name": "adam", "lr": 0.01})
    fitted = task.fit(initial, round=1)
    y = task.data.y[task.data.rows["test"]]
    error = float(((task.predict(fitted.state, split="test") - y) ** 2).mean())
    assert error < 0.02 < 0.2 < float(((task.predict(initial, split="test") - y) ** 2).mean())


@pytest.mark.gpu
def test_a_gpu_trains_the_same_model() -> None:
    """Within rounding; and the same bits again on the same device."""
    cuda = torch.device("cuda")
    task = local(model=network().to(cuda), device=cuda)
    on_gpu = task.fit(start(), round=1)
    assert equal(on_gpu.state, task.fit(start(), round=1).state)
    moved = {name: value.cpu() for name, value in on_gpu.state.items()}
    torch.testing.assert_close(moved, local().fit(start(), round=1).state, atol=1e-4, rtol=1e-3)

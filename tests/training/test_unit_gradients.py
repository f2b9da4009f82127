"""Each patient's gradient, and the clipped sum of them, against a plain loop over patients."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.models import MODELS
from fedrad.registry import build
from fedrad.training.dp.ghost_clipping import check_per_sample, clipped_sum, unit_gradients
from fedrad.training.objective import objective

IMAGE_SIZES = {"cnn": (8, 40), "mlp": (1, 1)}
# Over 20 million parameters, in layers of the kinds that resnet18 and densenet121 have.
LARGE = ("resnet34", "resnet50")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in sorted(MODELS)
]


def made(name: str, *, height: int, width: int, channels: int, outputs: int) -> nn.Module:
    """A model of the table for images of some size."""
    labels = tuple(f"finding {k}" for k in range(outputs))
    shape = (height + width,) if name == "mlp" else (channels, height, width)
    torch.manual_seed(height + width)
    task = Task(name="multilabel", labels=labels, input=shape)
    return build(MODELS, name, task, where="model").train()


def drawn(model_input: tuple[int, ...], outputs: int, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels, one in five not read."""
    torch.manual_seed(len(unit))
    x = torch.randn(len(unit), *model_input)
    y = torch.randint(0, 2, (len(unit), outputs)).float()
    return x, torch.where(torch.rand_like(y) < 0.2, float("nan"), y)


def losses(outputs: int):
    labels = tuple(f"finding {k}" for k in range(outputs))
    return objective(Task(name="multilabel", labels=labels, input=(1,))).losses


def looped(model: nn.Module, of: object, x: Tensor, y: Tensor, unit: Tensor) -> list[list[Tensor]]:
    """Every unit's gradient by itself, by torch's own backward pass over that unit's images."""
    params = list(model.parameters())
    return [
        list(torch.autograd.grad(of(model(x[unit == u]), y[unit == u]).sum(), params))
        for u in range(int(unit.max()) + 1)
    ]


def clipped(gradients: list[Tensor], clip: float) -> list[Tensor]:
    norm = torch.stack([g.norm() for g in gradients]).norm()
    # A patient of whom nothing was read has a gradient of zero.
    return [g * min(1.0, clip / max(norm.item(), 1e-30)) for g in gradients]


def assert_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Within rounding of the largest gradient of all."""
    most = max(w.abs().max().item() for w in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4 * most, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
@given(data=st.data())
def test_a_patient_s_gradient_is_that_of_a_loop_over_patients(
    name: str, data: st.DataObject
) -> None:
    """Whatever the size of images, the number of findings, and the images of a patient."""
    low, high = IMAGE_SIZES.get(name, (29, 34))
    height, width = (data.draw(st.integers(max(low, 6), max(high, 12))) for _ in range(2))
    channels, outputs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    unit = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    unit = unit[torch.randperm(len(unit), generator=torch.Generator().manual_seed(1))]
    model = made(name, height=height, width=width, channels=channels, outputs=outputs)
    shape = (height + width,) if name == "mlp" else (channels, height, width)
    x, y = drawn(shape, outputs, unit)
    wanted = looped(model, losses(outputs), x, y, unit)
    params = list(model.parameters())
    found = unit_gradients(model, params, losses(outputs), x, y, unit)
    for u, gradients in enumerate(wanted):
        assert_close([g[u] for g in found], gradients)
    norms = [torch.stack([g.norm() for g in one]).norm().item() for one in wanted]
    clip = sum(norms) / len(norms) + 1e-6
    summed = [
        torch.stack(parts).sum(0) for parts in zip(*(clipped(w, clip) for w in wanted), strict=True)
    ]
    for ghost in (True, False):
        one = clipped_sum(model, params, losses(outputs), x, y, unit, clip=clip, ghost=ghost)
        assert_close(one, summed)


def test_the_gradients_of_images_are_opacus_own() -> None:
    """An independent implementation: Opacus' hooks on the same net and images."""
    model = made("cnn", height=24, width=24, channels=1, outputs=1)
    x, y = drawn((1, 24, 24), 1, torch.arange(5))
    found = unit_gradients(model, list(model.parameters()), losses(1), x, y, torch.arange(5))
    hooked = GradSampleModule(model, loss_reduction="sum")
    losses(1)(hooked(x), y).sum().backward()
    for gradient, p in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad_sample, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, groups=2, padding="same"),
        nn.Conv2d(2, 3, 3, stride=2, dilation=2, padding=1),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(2, 3, 1, stride=2),
        nn.ConvTranspose2d(2, 3, 2, stride=2),
        nn.InstanceNorm2d(2, affine=True),
        nn.LayerNorm(9),
        nn.Linear(9, 4),
        nn.PReLU(2),
    ],
    ids=str,
)
def test_a_layer_of_any_kind_is_clipped_as_a_loop_would(layer: nn.Module) -> None:
    """Layers without a fast way are differentiated once more for every image."""
    torch.manual_seed(0)
    x, y, unit = torch.randn(4, 2, 9, 9), torch.zeros(4, 1), torch.tensor([0, 1, 0, 2])

    def of(logits: Tensor, _: Tensor) -> Tensor:
        return logits.sin().flatten(1).sum(1)

    params = list(layer.parameters())
    wanted = looped(layer, of, x, y, unit)
    summed = [
        torch.stack(parts).sum(0) for parts in zip(*(clipped(w, 0.5) for w in wanted), strict=True)
    ]
    assert_close(clipped_sum(layer, params, of, x, y, unit, clip=0.5), summed)


def test_a_patient_with_a_gradient_that_is_no_number_adds_nothing() -> None:
    """Zero is within the clip; a nan in the sum would reach every hospital."""
    model = made("cnn", height=16, width=16, channels=1, outputs=1)
    params = list(model.parameters())
    x, y = torch.randn(3, 1, 16, 16), torch.ones(3, 1)
    x[1] = float("inf")
    with_it = clipped_sum(model, params, losses(1), x, y, torch.tensor([0, 1, 2]), clip=1.0)
    without = clipped_sum(model, params, losses(1), x[::2], y[::2], torch.tensor([0, 1]), clip=1.0)
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))
    alone = clipped_sum(model, params, losses(1), x[1:2], y[1:2], torch.tensor([0]), clip=1.0)
    assert not any(g.any() for g in alone)


def test_an_empty_batch_has_a_sum_of_zero() -> None:
    """Poisson samples may be empty; noise is added to them all the same."""
    model = made("mlp", height=3, width=3, channels=1, outputs=1)
    params = list(model.parameters())
    nothing = torch.zeros(0, 6), torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
    summed = clipped_sum(model, params, losses(1), *nothing, clip=1.0)
    assert [g.shape for g in summed] == [p.shape for p in params]
    assert not any(g.any() for g in summed)


def test_a_net_that_mixes_a_batch_s_patients_is_refused_with_a_way_out() -> None:
    """BatchNorm's statistics are of all patients of the batch."""
    task = Task(name="binary", labels=("lesion",), input=(1, 32, 32))
    net = build(MODELS, {"name": "resnet18", "norm": "batch"}, task, where="model")
    with pytest.raises(ConfigError, match=r"stem\.bn1 is BatchNorm2d.*say norm: group"):
        check_per_sample(net)
    for name in MODELS:
        check_per_sample(made(name, height=32, width=32, channels=1, outputs=1))


def test_a_layer_that_is_used_twice_is_refused() -> None:
    """Its two shares would be clipped apart, and their sum not at all."""
    layer = nn.Linear(3, 3)
    with pytest.raises(ConfigError, match="is used by 2 layers"):
        clipped_sum(
            nn.Sequential(layer, nn.Tanh(), layer), list(layer.parameters()),
            lambda logits, _: logits.sum(1), torch.ones(2, 3), torch.ones(2, 1),
            torch.arange(2), clip=1.0,
        )  # fmt: skip

"""Max pooling that is laid out for speed is torch's own, bit for bit, forwards and backwards."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedrad.assemble import model_of
from fedrad.config import from_text
from fedrad.models.pooling import MaxPool2d, with_fast_pooling


def image(kind: torch.dtype = torch.float32) -> Tensor:
    """Full of ties, as after a ReLU, with one pixel that is no number and one that is infinite."""
    torch.manual_seed(0)
    x = torch.randn(3, 5, 14, 17).relu().mul(4).round().to(kind)
    x[0, 0, 3, 3], x[1, 2, 5, 6] = torch.nan, -torch.inf
    return x


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": (2, 1), "dilation": (1, 2)},
        {"kernel_size": 4, "ceil_mode": True},
    ],
)
def test_it_is_torchs_own(options: dict[str, object], kind: torch.dtype) -> None:
    theirs, ours = nn.MaxPool2d(**options), MaxPool2d(**options)
    x, y = (image(kind).requires_grad_() for _ in range(2))
    expected, found = theirs(x), ours(y)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())
    assert found.stride() == expected.stride()
    back = torch.randn_like(expected)
    expected.backward(back)
    found.backward(back)
    assert x.grad is not None and y.grad is not None
    assert torch.equal(x.grad, y.grad) and y.grad.is_contiguous()


def test_a_step_of_a_network_has_the_same_bits() -> None:
    """Biases before the pooling too: the sum of their gradients would tell another layout."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Sequential(nn.Conv2d(8, 16, 3), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(), nn.Linear(400, 2),
    )  # fmt: skip
    fast = with_fast_pooling(copy.deepcopy(plain))
    assert [type(one) for one in fast.modules()].count(MaxPool2d) == 2
    assert list(dict(fast.named_modules())) == list(dict(plain.named_modules()))
    x = torch.randn(4, 1, 24, 24)
    for net in (plain, fast):
        net(x).square().sum().backward()
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_stacked_networks_pool_as_one_by_one() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), MaxPool2d(2), nn.Flatten())
    x = torch.randn(3, 2, 1, 10, 10)
    state = {name: value.detach() for name, value in net.named_parameters()}

    def loss(state: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, state, (x,)).square().sum()

    together = vmap(grad(loss), in_dims=(None, 0))(state, x)
    for k in range(3):
        alone = grad(loss)(state, x[k])
        assert all(torch.allclose(together[name][k], alone[name], atol=1e-5) for name in alone)


@pytest.mark.parametrize(("channels_last", "kind"), [(False, MaxPool2d), (True, nn.MaxPool2d)])
def test_networks_get_it_unless_channels_are_innermost_anyway(
    channels_last: bool, kind: type
) -> None:
    pytest.importorskip("torchvision")
    text = """
name: x
task: {name: binary, labels: [lesion], input: [1, 32, 32]}
data: {name: phantom}
model: resnet18
algorithm: fedavg
rounds: 1
metrics: [auroc]
"""
    local = f"local: {{epochs: 1, batch: 8, channels_last: {str(channels_last).lower()}}}\n"
    arm = from_text(text + local).arm("fedavg")
    found = [one for one in model_of(arm).modules() if isinstance(one, nn.MaxPool2d)]
    assert [type(one) for one in found] == [kind]


def test_pooling_that_tells_places_is_left_alone() -> None:
    net = with_fast_pooling(nn.Sequential(nn.MaxPool2d(2, return_indices=True)))
    assert type(net[0]) is nn.MaxPool2d

"""The arithmetic of a cut, against closed forms and against the parts themselves."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedrad.config import Task
from fedrad.models import MODELS
from fedrad.models.cut import chain, legal_cuts, parts
from fedrad.models.cut_sizes import cut_sizes

TASK = Task(name="binary", labels=("lesion",), input=(1, 32, 32))


@pytest.fixture(scope="module", params=sorted(MODELS))
def net(request: pytest.FixtureRequest) -> nn.Module:
    """The network that both claims of a name share; measuring changes nothing in it."""
    return MODELS[request.param](TASK).eval()


def test_shapes_and_weights_are_those_of_the_parts_for_every_cut(net: nn.Module) -> None:
    tail = list(chain(net))[-1]
    x = torch.zeros(1, *TASK.input)
    for sizes in cut_sizes(net, TASK.input, legal_cuts(net, tail=tail), tail):
        split = parts(net, sizes.cut, tail)
        with torch.no_grad():
            z = split.front(x)
            assert tuple(z.shape[1:]) == sizes.activation
            assert tuple(split.body(z).shape[1:]) == sizes.features
        total = sum(p.numel() for p in net.parameters())
        sides = (sizes.front, sizes.body, sizes.tail_side)
        assert sum(side.parameters for side in sides) == total
        assert sizes.body.tensors == len(list(split.body.parameters()))
    assert next(net.parameters()).device.type == "cpu"


def test_operations_are_counted_as_by_hand() -> None:
    """A 3 x 3 convolution of 2 to 4 channels on 8 x 8: 2 * 9 * 2 * 4 * 64; a layer of 256: 512."""
    conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(256, 1))
    sizes = cut_sizes(net, (2, 8, 8), ["1"], "3")[0]
    assert (sizes.front.flops, sizes.body.flops, sizes.tail_side.flops) == (9216, 0, 512)
    assert sizes.share == 1.0


def test_shapes_and_bytes_are_the_same_whether_operations_are_counted_or_not(
    net: nn.Module,
) -> None:
    """A hospital's guard does not count them; `fedrad check` does."""
    tail = list(chain(net))[-1]
    cut = legal_cuts(net, tail=tail)[0]
    counted, other = (
        cut_sizes(net, TASK.input, [cut], tail, flops=flops)[0] for flops in (True, False)
    )
    assert (other.activation, other.features) == (counted.activation, counted.features)
    for one, two in ((counted.front, other.front), (counted.body, other.body)):
        assert replace(one, flops=0) == two
    assert counted.tail_side.bytes == other.tail_side.bytes
    assert counted.body.flops + counted.front.flops > 0

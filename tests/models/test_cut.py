"""Every model of the table, cut at every legal place, is still that model."""

from collections import OrderedDict
from functools import lru_cache

import pytest
import torch
from torch import nn

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.models import MODELS
from fedrad.models.cut import (
    chain,
    check_cut,
    check_shared,
    ends,
    legal_cuts,
    merged_parts,
    parts,
)

TASK = Task(name="multiclass", labels=("A", "B", "C"), input=(1, 32, 32))


@lru_cache(maxsize=1)
def model(name: str, **options: object) -> nn.Module:
    """A model of the table with weights that are the same each time; nobody may change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name](TASK, **options)


@pytest.fixture(scope="module", params=sorted(MODELS))
def net(request: pytest.FixtureRequest) -> nn.Module:
    """The network that all claims of a name share; a cut changes nothing in it."""
    return model(request.param)


def test_the_parts_composed_are_the_whole_for_every_legal_cut(net: nn.Module) -> None:
    """Bit for bit, inner cuts included, with the last layer as the tail where one is left."""
    x = torch.randn(2, *TASK.input, generator=torch.Generator().manual_seed(0))
    last = list(chain(net))[-1]
    cuts = legal_cuts(net, inner=True)
    assert len(cuts) >= len(legal_cuts(net)) >= 2
    with torch.no_grad():
        whole = net(x)
        for cut in cuts:
            split = parts(net, cut)
            assert torch.equal(split.tail(split.body(split.front(x))), whole), cut
            split = parts(net, cut, last)
            assert torch.equal(split.tail(split.body(split.front(x))), whole), cut


def test_the_parts_states_merge_back_into_the_whole_one_for_every_legal_cut(
    net: nn.Module,
) -> None:
    """Same names, same order, same arrays; no name in two parts."""
    state = net.state_dict()
    last = list(chain(net))[-1]
    for cut in legal_cuts(net, inner=True):
        split = parts(net, cut, last)
        states = [part.state_dict() for part in (split.front, split.body, split.tail)]
        assert sum(map(len, states)) == len(state)
        again = merged_parts(state, *reversed(states))
        assert list(again) == list(state)
        assert all(again[key].data_ptr() == value.data_ptr() for key, value in state.items())


def test_what_a_site_holds_is_cut_like_the_whole_with_nothing_between(
    net: nn.Module,
) -> None:
    last = list(chain(net))[-1]
    for cut in legal_cuts(net):
        own = parts(ends(net, cut, last), cut, last)
        whole = parts(net, cut, last)
        assert list(own.front.state_dict()) == list(whole.front.state_dict())
        assert list(own.tail.state_dict()) == list(whole.tail.state_dict())
        assert not list(own.body.children())


@pytest.mark.parametrize(
    ("cut", "tail", "told"),
    [
        ("layr1", None, r"algorithm\.cut: the model has no child 'layr1' \(did you mean 'layer1'"),
        ("layr1", None, "legal cuts are stem, layer1, layer2, layer3, layer4, and inside them"),
        ("layer2.0.conv1", None, "'layer2.0.conv1' lies inside layer2.0, a Residual"),
        ("layer2.0.conv1", None, "cut after layer2.0 or before it"),
        ("head", None, "after 'head' nothing is left for the server"),
        ("layer2", "layer1", "'layer1' comes before the end of the front"),
        ("layer2", "layer2.1", "'layer2.1' comes before the end of the front"),
        ("layer4", "stem", r"end of the front \('layer4'\); cut earlier, or leave tail out$"),
        ("layer4", "head", "between 'layer4' and 'head' nothing is left for the server"),
        ("layer4", "hea", r"algorithm\.tail: the model has no child 'hea'"),
    ],
)
def test_a_cut_that_does_not_fit_says_what_would(cut: str, tail: str | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_cut(model("resnet18"), cut, tail)


def test_a_dense_block_cannot_be_cut_inside() -> None:
    """Its layers are called in turn, but each sees all that came before it."""
    with pytest.raises(ConfigError, match="lies inside denseblock1"):
        check_cut(model("densenet121"), "denseblock1.denselayer1", None)


def test_batch_norm_in_a_shared_front_is_refused_and_in_the_servers_part_is_not() -> None:
    net = model("resnet18", norm="batch")
    with pytest.raises(ConfigError, match=r"the front that sites share holds BatchNorm \(stem.bn1"):
        check_shared(net, "stem", None)
    check_shared(net, "stem.conv1", "head.fc")
    with pytest.raises(ConfigError, match="the tail that sites share holds BatchNorm"):
        check_shared(net, "stem.conv1", "layer4")


def test_dropout_is_refused_because_its_random_numbers_do_not_travel() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), b=nn.Dropout(0.5), c=nn.Linear(2, 1)))
    with pytest.raises(ConfigError, match="the model has dropout"):
        check_cut(net, "a", None)


def test_a_network_that_is_no_chain_cannot_be_cut() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

    with pytest.raises(ConfigError, match="no chain of children"):
        check_cut(Skip(), "layer", None)

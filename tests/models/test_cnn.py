import pytest
import torch

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.models.cnn import cnn
from fedrad.models.mlp import mlp


def images(channels: int = 1, side: int = 64) -> Task:
    return Task(name="binary", labels=("lesion",), input=(channels, side, side))


def test_the_number_of_parameters_follows_from_the_width() -> None:
    """Convolutions 25w + 9(2w*w + 4w*2w + 8w*4w), norms 2(w + 2w + 4w + 8w), head 8w + 1."""
    for w in (4, 16):
        expected = 25 * w + 9 * 42 * w * w + 30 * w + 8 * w + 1
        assert sum(p.numel() for p in cnn(images(), width=w).parameters()) == expected
    assert expected == 97_777


@pytest.mark.parametrize("side", [1, 7, 28, 65])
def test_any_size_of_image_fits(side: int) -> None:
    """Strides round up, so there is always a pixel left to average."""
    assert cnn(images(3, side), width=2)(torch.zeros(1, 3, side, side)).shape == (1, 1)


def test_a_width_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.width: needs 1 or more, found 0"):
        cnn(images(), width=0)
    with pytest.raises(ConfigError, match=r"model\.hidden: widths are 1 or more, found \[8, 0\]"):
        mlp(images(), hidden=(8, 0))


def test_an_mlp_without_hidden_layers_is_logistic_regression() -> None:
    """One weight a feature and an intercept: x w + b."""
    model = mlp(Task(name="binary", labels=("disease",), input=(3,)), hidden=())
    weight, bias = model.parameters()
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x), x @ weight.T + bias)

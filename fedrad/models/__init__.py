"""The table of models: builders of networks that give one logit a finding or a class."""

from collections.abc import Callable, Mapping

from torch import nn

from fedrad.models.backbones import densenet121, resnet18, resnet34, resnet50
from fedrad.models.cnn import cnn
from fedrad.models.mlp import mlp

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "densenet121": densenet121,
    "mlp": mlp,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
}

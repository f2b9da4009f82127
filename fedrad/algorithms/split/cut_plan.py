"""What all split algorithms share: where the network is cut, and what goes over the cut.

A site computes the front and, in the U-shape, the tail with the loss; the server computes the body.
Per batch the front's activations go up and their gradient comes down; in the U-shape the body's
output comes down and its gradient goes up, so that neither labels nor scores ever leave.

Optimisers: the papers use plain SGD, which has no state. Here both sides take the experiment's
optimiser, made anew in every round as in `fedavg`; a site's lasts for the round and stays at the
site, the server's lasts as long as its part does (`splitnn`, `splitfed`).

Clipping limits the norm of the whole network's gradient, as without a cut. For this the server
tells the norm of each of its gradients, and learns from the site by how much to shrink them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from fedrad.core.wire import Precision
from fedrad.errors import ConfigError
from fedrad.models.cut import Parts, chain, check_cut, check_shared, ends, parts

__all__ = ["CutPlan", "LabelPlace", "NoPeek", "Noise"]

LabelPlace = Literal["u", "labels_at_server"]
NoPeek = Annotated[float, Field(ge=0)]
Noise = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class CutPlan:
    """Where a network is cut, and what is done to that which crosses the cut.

    Args:
        cut: the front goes up to and with this child.
        tail: the tail begins with this child; None is the network's last layer alone. Only for "u".
        shape: "u" keeps labels and scores at the site; "labels_at_server" sends labels.
        activations: their precision on the wire, both ways.
        gradients: their precision on the wire, both ways.
        nopeek: weight of the distance correlation between images and activations in the loss.
        noise: standard deviation of the Gaussian noise that is added to the front's activations,
            in training and in tests. It makes reconstruction harder and is no privacy guarantee:
            the activations' size is not limited and nothing is accounted.
        shared: whether the sites' parts are one model of all sites.
    """

    cut: str
    tail: str | None = None
    shape: LabelPlace = "u"
    activations: Precision = "float32"
    gradients: Precision = "float32"
    nopeek: float = 0.0
    noise: float = 0.0
    shared: bool = True

    def check(self, model: nn.Module, *, where: str = "algorithm") -> None:
        """Refuse a cut that does not fit the model.

        Raises:
            ConfigError: as for `check_cut` and `check_shared`, or a tail where it has no place.
        """
        if self.tail and self.shape != "u":
            raise ConfigError(
                f"{where}.tail: with shape: labels_at_server the network ends at the server; "
                "leave tail out, or take shape: u"
            )
        check_cut(model, self.cut, self.tail_of(model), where=where)
        if self.shared:
            check_shared(model, self.cut, self.tail_of(model), where=where)

    def tail_of(self, model: nn.Module) -> str | None:
        """Return where a model's tail begins, None without one."""
        if self.shape != "u":
            return None
        return self.tail or list(chain(model))[-1]

    def parts(self, model: nn.Module) -> Parts:
        """Return the parts of a model, or of its `ends`."""
        return parts(model, self.cut, self.tail_of(model))

    def ends(self, model: nn.Module) -> nn.Sequential:
        """Return what a site holds of a model."""
        return ends(model, self.cut, self.tail_of(model))

"""Arithmetic of model states: the vector space that federated learning lives in.

A `State` is what torch calls a state_dict; a `Bundle` is several of them by name, which is what a
message carries and what a round keeps.
"""

import torch
from torch import Tensor

__all__ = ["Bundle", "Mean", "State", "all_finite", "clone", "is_bit_identical", "num_bytes"]

State = dict[str, Tensor]
Bundle = dict[str, State]


def clone(state: State) -> State:
    """Return a copy that shares no memory with the state.

    >>> a = {"w": torch.zeros(2)}
    >>> b = clone(a); _ = b["w"].add_(1)
    >>> a["w"].tolist()
    [0.0, 0.0]
    """
    return {name: value.detach().clone() for name, value in state.items()}


def num_bytes(bundle: Bundle) -> int:
    """Return the bytes of all arrays in a bundle, without framing.

    >>> num_bytes({"model": {"w": torch.zeros(2, 3)}})
    24
    """
    return sum(t.numel() * t.element_size() for state in bundle.values() for t in state.values())


def all_finite(bundle: Bundle) -> bool:
    """Return whether every number in a bundle is finite.

    >>> all_finite({"model": {"w": torch.tensor([1.0, float("nan")])}})
    False
    """
    tensors = [t for state in bundle.values() for t in state.values() if t.is_floating_point()]
    if not tensors:
        return True
    # One sum a tensor: it is finite unless an element is not (or the sum overflows: look closer).
    sums = torch.stack([t.sum(dtype=torch.float32) for t in tensors])
    return bool(sums.isfinite().all()) or all(bool(t.isfinite().all()) for t in tensors)


def is_bit_identical(one: Bundle, other: Bundle) -> bool:
    """Return whether two bundles hold the same names and the same bits.

    >>> is_bit_identical({"model": {"w": torch.ones(2)}}, {"model": {"w": torch.ones(2)}})
    True
    """
    return one.keys() == other.keys() and all(
        one[name].keys() == other[name].keys()
        and all(torch.equal(one[name][key], other[name][key]) for key in one[name])
        for name in one
    )


class Mean:
    """A running weighted mean of bundles that holds one bundle, however many are added.

    Law: `merge` of parts that were added in the same blocks gives the same bits wherever each part
    was added up. Integer arrays (counters such as `num_batches_tracked`) are averaged in double and
    rounded. Half precision is added up and averaged in float32, where the mean stays.

    >>> mean = Mean()
    >>> mean.add({"model": {"w": torch.tensor([0.0])}}, weight=1)
    >>> mean.add({"model": {"w": torch.tensor([4.0])}}, weight=3)
    >>> mean.value()["model"]["w"].item()
    3.0
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.sums: Bundle = {}
        self.kinds: dict[str, dict[str, torch.dtype]] = {}

    def add(self, bundle: Bundle, weight: float) -> None:
        """Add one bundle; the weight is not negative, and the bundle is not changed."""
        if weight < 0:
            raise ValueError(f"a weight is {weight:g}; it must not be negative")
        self.total += weight
        for name, state in bundle.items():
            kinds = self.kinds.setdefault(name, {})
            sums = self.sums.setdefault(name, {})
            wide = [_wide(value) for value in state.values()]
            if sums:
                torch._foreach_add_([sums[key] for key in state], wide, alpha=weight)
                continue
            for (key, value), widened in zip(state.items(), wide, strict=True):
                kinds[key] = value.dtype
                sums[key] = widened * weight

    def merge(self, part: "Mean") -> None:
        """Add what another mean has added up; it must not be used afterwards."""
        self.total += part.total
        for name, state in part.sums.items():
            if name not in self.sums:
                self.sums[name], self.kinds[name] = state, part.kinds[name]
                continue
            for key, value in state.items():
                self.sums[name][key].add_(value)

    def value(self) -> Bundle:
        """Return the mean of what was added; the weights must not sum to zero."""
        if not self.total > 0:
            raise ValueError("the weights of a mean sum to zero")
        return {
            name: {key: self._mean(value, self.kinds[name][key]) for key, value in sums.items()}
            for name, sums in self.sums.items()
        }

    def _mean(self, value: Tensor, kind: torch.dtype) -> Tensor:
        mean = value / self.total
        return mean if kind.is_floating_point else mean.round().to(kind)


def _wide(value: Tensor) -> Tensor:
    """Return a tensor in the precision that it is added up in; float32 and float64 in their own."""
    if not value.is_floating_point():
        return value.double()
    # Half precision would lose small terms beside a large sum, and overflow at 65504.
    return value.float() if value.element_size() < 4 else value

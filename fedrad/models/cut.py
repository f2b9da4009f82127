"""A network cut into the parts that a site and a server hold: front | body | tail.

A network here is a chain: nested `nn.Sequential`s whose leaves are called one after the other. It
may be cut between any two leaves, and nowhere else: what lies inside a residual block or a dense
block is used twice. The parts keep the names of the whole network, so their states are parts of its
state and merge back by joining the dictionaries.

Gupta and Raskar, "Distributed learning of deep neural network over multiple agents", 2018,
https://arxiv.org/abs/1810.06060, for the front and for the U-shape with a tail at the site.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fedrad.core.state import State
from fedrad.errors import ConfigError
from fedrad.registry import nearest

__all__ = [
    "Parts",
    "chain",
    "check_cut",
    "check_shared",
    "ends",
    "legal_cuts",
    "merged_parts",
    "parts",
]


@dataclass(frozen=True)
class Parts:
    """A network's parts, under the whole network's names; they share its arrays.

    Law: `tail(body(front(x)))` is the whole network's output, bit for bit.

    Args:
        front: up to and with the cut, at the site.
        body: between, at the server.
        tail: from where the site takes over again; empty (it returns its input) when the server's
            part is the network's end.
    """

    front: nn.Sequential
    body: nn.Sequential
    tail: nn.Sequential


def chain(model: nn.Module) -> dict[str, nn.Module]:
    """Return the leaves that a network calls one after the other, by their full names.

    >>> net = nn.Sequential(OrderedDict(a=nn.Sequential(nn.Linear(2, 2), nn.ReLU()), b=nn.Tanh()))
    >>> list(chain(net))
    ['a.0', 'a.1', 'b']
    """
    return dict(_leaves(model, ""))


def legal_cuts(
    model: nn.Module, *, inner: bool = False, tail: str | None = None
) -> tuple[str, ...]:
    """Return the names after which a network can be cut, in its order.

    Args:
        model: a chain.
        tail: the tail begins with this child, and something must be left before it.
        inner: also those inside its children, such as `layer2.0`; a child that is a chain then
            stands for itself by its last leaf.

    >>> legal_cuts(nn.Sequential(OrderedDict(stem=nn.Linear(2, 2), head=nn.Linear(2, 1))))
    ('stem',)
    """
    names = list(chain(model)) if inner else [name for name, _ in model.named_children()]
    end = len(chain(model)) if tail is None else _place(model, tail, where="tail")[0]
    return tuple(name for name in names if _place(model, name, where="cut")[1] < end)


def check_cut(model: nn.Module, cut: str, tail: str | None, *, where: str = "algorithm") -> None:
    """Refuse a cut that leaves no front, body (or, with a tail, tail) of its own.

    Raises:
        ConfigError: a name is none of the network's, lies inside a block, or leaves a part empty;
            or the network draws random numbers while it trains.
    """
    names = list(chain(model))
    end = _place(model, cut, where=f"{where}.cut")[1]
    if end == len(names):
        raise ConfigError(
            f"{where}.cut: after '{cut}' nothing is left for the server; {_told(model)}"
        )
    if any(isinstance(m, _DropoutNd) and m.p > 0 for m in model.modules()):
        raise ConfigError(
            f"{where}.cut: the model has dropout, whose random numbers do not travel between the "
            "parts; set its share to 0, or do not cut it"
        )
    if tail is None:
        return
    start = _place(model, tail, where=f"{where}.tail")[0]
    if start < end:
        later = ", ".join(_later(model, end))
        raise ConfigError(
            f"{where}.tail: '{tail}' comes before the end of the front ('{cut}'); "
            + (f"a tail is one of {later}" if later else "cut earlier, or leave tail out")
        )
    if start == end:
        raise ConfigError(
            f"{where}.tail: between '{cut}' and '{tail}' nothing is left for the server; "
            f"cut earlier, or take a later tail such as {list(chain(model))[-1]}"
        )


def check_shared(model: nn.Module, cut: str, tail: str | None, *, where: str = "algorithm") -> None:
    """Refuse BatchNorm in parts that sites share.

    Raises:
        ConfigError: the front or the tail has one.
    """
    split = parts(model, cut, tail)
    for title, part in (("front", split.front), ("tail", split.tail)):
        found = [name for name, m in part.named_modules() if isinstance(m, _BatchNorm)]
        if found:
            raise ConfigError(
                f"{where}.cut: the {title} that sites share holds BatchNorm ({found[0]}), whose "
                "running statistics are one site's and are handed to the next; use the model's "
                "`norm: group`, or splitfed version 3, whose fronts stay private"
            )


def parts(model: nn.Module, cut: str, tail: str | None = None) -> Parts:
    """Return a network's parts.

    Args:
        model: a chain, or only its `ends`.
        cut: the front goes up to and with this child.
        tail: the tail begins with this child; None for no tail.

    Raises:
        ConfigError: a name is none of the network's, or lies inside a block.

    >>> net = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), b=nn.Linear(2, 2), c=nn.Linear(2, 1)))
    >>> [list(part.state_dict()) for part in vars(parts(net, "a", "c")).values()]
    [['a.weight', 'a.bias'], ['b.weight', 'b.bias'], ['c.weight', 'c.bias']]
    """
    names = list(chain(model))
    end = _place(model, cut, where="cut")[1]
    start = len(names) if tail is None else _place(model, tail, where="tail")[0]
    bounds = (names[:end], names[end:start], names[start:])
    front, body, rest = (_part(model, frozenset(kept), "") for kept in bounds)
    return Parts(front, body, rest)


def ends(model: nn.Module, cut: str, tail: str | None = None) -> nn.Sequential:
    """Return what a site holds of a network: its front and its tail, in one container.

    It is not to be called; `parts` of it are the front, an empty body and the tail.

    >>> net = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), b=nn.Linear(2, 2), c=nn.Linear(2, 1)))
    >>> list(ends(net, "a", "c").state_dict())
    ['a.weight', 'a.bias', 'c.weight', 'c.bias']
    """
    split = parts(model, cut, tail)
    kept = {*chain(split.front), *chain(split.tail)}
    return _part(model, frozenset(kept), "")


def merged_parts(like: State, *states: State) -> State:
    """Return the whole network's state from its parts', in its order.

    Args:
        like: a state of the whole network, for names and order.
        states: of the parts; a later one wins where two hold a name.

    >>> whole = {"a": torch.zeros(1), "b": torch.zeros(1)}
    >>> list(merged_parts(whole, {"b": torch.ones(1)}, {"a": torch.ones(1)}))
    ['a', 'b']
    """
    together = {name: value for state in states for name, value in state.items()}
    assert together.keys() == like.keys(), "the parts are not the whole"
    return {name: together[name] for name in like}


def _leaves(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if _is_chain(child):
            yield from _leaves(child, f"{path}.")
        else:
            yield path, child


def _is_chain(module: nn.Module) -> bool:
    # A subclass with a forward of its own, such as DenseNet's layers, is no chain.
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _part(model: nn.Module, kept: frozenset[str], prefix: str) -> nn.Sequential:
    """Return a chain with some of a chain's leaves, under the same names."""
    found: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if not _is_chain(child):
            if path in kept:
                found[name] = child
        elif inside := _part(child, kept, f"{path}."):
            found[name] = inside
    return nn.Sequential(found)


def _place(model: nn.Module, name: str, *, where: str) -> tuple[int, int]:
    """Return where a child's leaves begin and end in the chain."""
    if not _is_chain(model):
        raise ConfigError(f"{where}: the model is no chain of children, so it cannot be cut")
    leaves = list(chain(model))
    own = [n for n, leaf in enumerate(leaves) if leaf == name or leaf.startswith(f"{name}.")]
    if own:
        return own[0], own[-1] + 1
    around = [leaf for leaf in leaves if name.startswith(f"{leaf}.")]
    if around and name in dict(model.named_modules()):
        kind = type(model.get_submodule(around[0])).__name__
        raise ConfigError(
            f"{where}: '{name}' lies inside {around[0]}, a {kind}, whose input is used again at "
            f"its end; cut after {around[0]} or before it; {_told(model)}"
        )
    known = dict.fromkeys([*legal_cuts(model), *leaves])
    hint = nearest(name, known)
    raise ConfigError(f"{where}: the model has no child '{name}'{hint}; {_told(model)}")


def _told(model: nn.Module) -> str:
    inner = [name for name in legal_cuts(model, inner=True) if "." in name]
    such = f", and inside them such as {inner[0]}" if inner else ""
    return f"legal cuts are {', '.join(legal_cuts(model))}{such}"


def _later(model: nn.Module, end: int) -> list[str]:
    """Return the children that begin later than right after a place of the chain."""
    names = [name for name, _ in model.named_children()]
    return [name for name in names if _place(model, name, where="tail")[0] > end]

"""Tables of what an experiment would exchange with a site."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedrad.config import Experiment
    from fedrad.deployment.reply_spec import ArraySpec
    from fedrad.deployment.site.preview import Exchange

__all__ = ["as_json", "bandwidth_table", "preview_tables"]

Verdict = Callable[["Exchange"], str]


def preview_tables(
    exchanges: Sequence["Exchange"], verdict: Verdict, risks: Mapping[str, str]
) -> "Iterator[RenderableType]":
    """Yield the questions with their answers' weight, why some are refused, and every array.

    Args:
        exchanges: with a site.
        verdict: of the site's policy on each.
        risks: arm -> what could be drawn from one of its updates, in words.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from fedrad.report.formatting import size

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("arm", "when", "asked"):
        table.add_column(column, no_wrap=True)
    for column in ("in", "out"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("arrays out")
    table.add_column("policy", no_wrap=True)
    refusals: dict[str, None] = {}
    for one in exchanges:
        told, _, why = verdict(one).partition(": ")
        if why:
            refusals[f"{told}: {one.action}: {why}"] = None
        sizes = (size(one.bytes_in), size(one.answer.bytes))
        table.add_row(Text(one.arm), one.when, one.action, *sizes, Text(_leaves(one)), told)
    yield table
    yield from (Text(line) for line in refusals)
    yield from (Text(f"{arm}: {told}") for arm, told in risks.items())
    streams = dict.fromkeys(
        f"{o.arm}: {o.action}: a stream of {o.told}" for o in exchanges if o.told
    )
    yield from (Text(line) for line in streams)
    asked = [one for one in exchanges if not one.told]
    for action, numbers in sorted({(o.action, tuple(sorted(o.answer.numbers))) for o in asked}):
        yield Text(f"numbers of {action}: {', '.join(numbers) or 'none'}")
    for title, arrays in _looks(exchanges).items():
        inner = Table("array", "shape", "kind", box=SIMPLE_HEAD, title=title, title_justify="left")
        inner.add_column("bytes", justify="right")
        for key, shape in arrays.items():
            inner.add_row(Text(key), str(list(shape.shape)), shape.kind, f"{shape.bytes:,}")
        yield inner


def _leaves(one: "Exchange") -> str:
    return ", ".join(f"{len(state)} {name}" for name, state in one.answer.arrays.items())


def _looks(exchanges: Sequence["Exchange"]) -> "Mapping[str, Mapping[str, ArraySpec]]":
    """Return every kind of state that leaves, each once, under where it is met first."""
    seen: set[str] = set()
    found: dict[str, Mapping[str, ArraySpec]] = {}
    for one in exchanges:
        for name, state in one.answer.arrays.items():
            if str(state) not in seen:
                seen.add(str(state))
                found[f"{name}, as {one.arm} answers {one.action} ({one.when})"] = state
    return found


def as_json(
    exchanges: Sequence["Exchange"], verdict: Verdict, risks: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the same as plain values."""
    return [
        {
            "arm": one.arm,
            "when": one.when,
            "action": one.action,
            "bytes_in": one.bytes_in,
            "bytes_out": one.answer.bytes,
            "arrays": {
                f"{name}/{key}": {"shape": list(shape.shape), "kind": shape.kind}
                for name, state in one.answer.arrays.items()
                for key, shape in state.items()
            },
            "numbers": sorted(one.answer.numbers),
            "stream": one.told,
            "update": risks.get(one.arm, "") if one.update else "",
            "policy": verdict(one),
        }
        for one in exchanges
    ]


def bandwidth_table(experiment: "Experiment", mbit: float, sites: int) -> "RenderableType":
    """Return how long arrays are on the wire, for each arm that can be deployed.

    Args:
        experiment: whose arms.
        mbit: of a site's line, 10^6 bits a second each way, one way after the other.
        sites: how many train; the coordinator's line carries what all of them send.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fedrad.assemble import algorithm_of
    from fedrad.deployment.site.preview import exchanges_of, per_round

    title = f"On a line of {mbit:g} Mbit/s, for one site"
    table = Table("arm", box=SIMPLE_HEAD, title=title, title_justify="left")
    for column in ("MB in", "MB out", "minutes a round", "at the end", "in all"):
        table.add_column(column, justify="right")
    table.add_column(f"MB a round at the coordinator, {sites} sites", justify="right")
    for name in experiment.arm_names:
        algorithm = algorithm_of(experiment.arm(name))
        if algorithm.pooled or algorithm.cut:
            table.add_row(name, *["-"] * 6)
            continue
        found = exchanges_of(experiment, name)
        down, up = per_round(found)
        last = [one for one in found if one.when == "at the end"]
        end = _minutes(sum(one.bytes_in + one.answer.bytes for one in last), mbit)
        each = _minutes(down + up, mbit)
        table.add_row(
            name,
            f"{down / 1e6:.3g}",
            f"{up / 1e6:.3g}",
            f"{each:.2g}",
            f"{end:.2g}",
            f"{each * experiment.rounds + end:.3g}",
            f"{(down + up) * sites / 1e6:.3g}",
        )
    table.caption = (
        "Arrays alone: latency, framing (1 to 3 %) and training come on top. An arm that pools the "
        "data (-) can only be simulated; one whose network is cut (-) streams what the table of "
        "cuts says. With other sites' own models to test, the end takes "
        "longer by as many."
    )
    return table


def _minutes(size: float, mbit: float) -> float:
    return size * 8 / (mbit * 1e6) / 60

"""Who took part in the rounds of each arm, on the page and in the terminal alike."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from fedrad.core.names import by_reason, listed
from fedrad.report.many_sites import ONE_BY_ONE

__all__ = ["participation_of", "rounds_panel", "took_part"]

RoundLine = Mapping[str, Any]
_NAMED = 8  # sites whose rounds a sentence counts one by one


def participation_of(lines: Mapping[int, Sequence[RoundLine]]) -> dict[str, Any] | None:
    """Return who was drawn and who answered, None where rounds of an older version do not say.

    Args:
        lines: seed -> the record of its rounds, oldest first.

    Returns:
        "rounds", over all seeds; "drawn" and "answered", site -> rounds; "not_asked", site -> why
        it refused; and "by_round", seed -> stretches of rounds ("first", "last") with the same
        sites, None of more than two dozen.
    """
    told = [line for one in lines.values() for line in one]
    if not told or any("drawn" not in line for line in told):
        return None
    drawn = Counter(site for line in told for site in line["drawn"])
    answered = Counter(site for line in told for site in line["answered"])
    few = len(drawn) <= ONE_BY_ONE
    return {
        "rounds": len(told),
        "drawn": dict(sorted(drawn.items())),
        "answered": dict(sorted(answered.items())),
        "not_asked": {
            site: why
            for line in told
            for site, why in sorted(line["missing"].items())
            if site not in line["drawn"]
        },
        "by_round": {str(s): list(_stretches(one)) for s, one in lines.items()} if few else None,
    }


def _stretches(lines: Sequence[RoundLine]) -> Iterator[dict[str, Any]]:
    keys = ("drawn", "answered", "missing")
    for (drawn, answered, missing), same in groupby(lines, lambda line: [line[k] for k in keys]):
        numbers = [line["round"] for line in same]
        yield {
            "first": numbers[0],
            "last": numbers[-1],
            "drawn": drawn,
            "answered": answered,
            "missing": missing,
        }


def took_part(results: Mapping[str, Any]) -> list[str]:
    """Return sentences on who took part in the rounds of the arms that federate or train at home.

    >>> known = {"rounds": 4, "drawn": {"nord": 4, "ost": 2}, "answered": {"nord": 4, "ost": 1}}
    >>> took_part({
    ...     "sites": [{"name": "nord", "held_out": False}, {"name": "ost", "held_out": False}],
    ...     "arms": [{"name": "fedavg", "pooled": False, "participation": known}],
    ... })
    ['Took part: fedavg: nord in 4, ost in 1 of 4 rounds (ost was asked 2 times).']
    """
    sites = [site["name"] for site in results["sites"] if not site["held_out"]]
    told = {
        arm["name"]: _sentence(arm["participation"], sites)
        for arm in results["arms"]
        if arm.get("participation") and not arm.get("pooled")
    }
    return [f"Took part: {by_reason(told)}."] if told else []


def _sentence(known: Mapping[str, Any], sites: Sequence[str]) -> str:
    rounds, answered, drawn = known["rounds"], known["answered"], known["drawn"]
    counts = {site: answered.get(site, 0) for site in sites}
    if all(count == rounds for count in counts.values()):
        return f"all {len(sites)} sites in every round"
    silent = {
        site: f"was asked {drawn[site]} time{'s' * (drawn[site] != 1)}"
        for site in sites
        if drawn.get(site, 0) > counts[site]
    }
    refused = {site: why for site, why in known.get("not_asked", {}).items() if site in sites}
    if len(sites) > _NAMED:
        least, most = min(counts.values()), max(counts.values())
        told = f"each of {len(sites)} sites in {least} to {most} of {rounds} rounds"
        notes = [f"{listed(silent)} did not answer when asked"] if silent else []
        return _with(told, [*notes, by_reason(refused)] if refused else notes)
    told = ", ".join(f"{site} in {count}" for site, count in counts.items())
    notes = [f"{site} {words}" for site, words in (silent | refused).items()]
    return _with(f"{told} of {rounds} rounds", notes)


def _with(sentence: str, notes: Sequence[str]) -> str:
    return f"{sentence} ({'; '.join(notes)})" if notes else sentence


def rounds_panel(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the page's part on who took part in each round."""
    sites = [site["name"] for site in results["sites"] if not site["held_out"]]
    rows = [
        {"arm": arm["name"], "seed": seed, "rounds": _numbers(one), **_names(one)}
        for arm in results["arms"]
        if not arm.get("pooled")
        for seed, stretches in ((arm.get("participation") or {}).get("by_round") or {}).items()
        if any(stretch["answered"] != sites for stretch in stretches)
        for one in stretches
    ]
    return {"sentences": took_part(results), "rows": rows}


def _numbers(stretch: RoundLine) -> str:
    first, last = stretch["first"], stretch["last"]
    return f"{first}" if first == last else f"{first} to {last}"


def _names(stretch: RoundLine) -> dict[str, str]:
    return {
        "answered": ", ".join(stretch["answered"]),
        "missing": by_reason(stretch["missing"]) if stretch["missing"] else "",
    }

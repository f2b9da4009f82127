"""How values, intervals, sizes and times are written, the same on the page and in the terminal."""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BLANK",
    "FormattedValue",
    "cell",
    "excludes_zero",
    "interval",
    "marks",
    "number",
    "one_line",
    "percent",
    "reasons",
    "seconds",
    "size",
    "tone",
]

EstimateJson = Mapping[str, Any]
ResultsJson = Mapping[str, Any]
"""`results.json`, or a part of it."""
TemplatePart = dict[str, Any]
"""What a part of the page is filled with."""
BLANK = "\u2013"  # an en dash: there is no value here


@dataclass(frozen=True)
class FormattedValue:
    """One value as a reader meets it: text, interval, and why something is missing."""

    text: str
    interval: str = ""
    shown: bool = False  # the only reason for bold: the interval excludes zero
    tone: str = ""  # "better", "worse" or ""
    mark: str = ""  # letter of the footnote
    note: str = ""  # tooltip
    where: str = ""  # the site of a worst value


def number(value: float | None, *, digits: int = 3, signed: bool = False) -> str:
    """Return a value with a true minus sign; a dash where there is none.

    >>> number(0.8421), number(0.0214, signed=True), number(-0.00001, signed=True)
    ('0.842', '+0.021', '0.000')
    """
    if value is None:
        return BLANK
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:  # neither "-0.000" nor "+0.000"
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")


def percent(value: float | None, *, digits: int = 1, signed: bool = False) -> str:
    """Return a share as percent.

    >>> percent(0.0634, signed=True), percent(-0.002, digits=0)
    ('+6.3%', '0%')
    """
    if value is None:
        return BLANK
    return number(100 * value, digits=digits, signed=signed) + "%"


def interval(estimate: EstimateJson, *, signed: bool = False, as_percent: bool = False) -> str:
    """Return "low to high", or "" when the estimate has no interval.

    >>> interval({"value": 0.84, "low": 0.801, "high": 0.88})
    '0.801 to 0.880'
    """
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return ""
    if as_percent:
        return f"{number(100 * low, digits=1, signed=signed)} to {percent(high, signed=signed)}"
    return f"{number(low, signed=signed)} to {number(high, signed=signed)}"


def excludes_zero(estimate: EstimateJson) -> bool:
    """Return whether the estimate has an interval, and zero lies outside of it.

    Never of one training of each: its interval holds for these trained models only.

    >>> excludes_zero({"value": 0.1, "low": 0.02, "high": 0.2})
    True
    >>> excludes_zero({"value": 0.1, "low": None, "high": None})
    False
    """
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None or estimate.get("seeds") == 1:
        return False
    return bool(low > 0 or high < 0)


def tone(difference: EstimateJson, *, higher_is_better: bool = True) -> str:
    """Return "better" or "worse" where the interval of a difference says so, else "".

    >>> tone({"value": -0.1, "low": -0.2, "high": -0.02}, higher_is_better=False)
    'better'
    """
    if not excludes_zero(difference):
        return ""
    return "better" if (difference["low"] > 0) == higher_is_better else "worse"


def cell(
    estimate: EstimateJson | None,
    letters: Mapping[str, str] | None = None,
    *,
    signed: bool = False,
    as_percent: bool = False,
    higher_is_better: bool | None = None,
    supported: bool = True,
) -> FormattedValue:
    """Return an estimate in words.

    Args:
        estimate: value, low, high, seed_sd, reason; None where there is nothing to say.
        letters: reason -> letter of its footnote.
        signed: a difference: has a sign, and is bold and coloured if its interval excludes zero.
        as_percent: a share, written as percent.
        higher_is_better: which sign of a difference is good; None gives no colour.
        supported: False where a correction for many comparisons took the claim back.

    >>> cell({"value": 0.06, "low": 0.02, "high": 0.1}, signed=True, higher_is_better=True).tone
    'better'
    """
    if estimate is None:
        return FormattedValue(BLANK)
    span = interval(estimate, signed=signed, as_percent=as_percent)
    write = percent if as_percent else number
    reason = estimate.get("reason") or ""
    shown = signed and supported and excludes_zero(estimate)
    coloured = shown and higher_is_better is not None
    return FormattedValue(
        text=write(estimate.get("value"), signed=signed),
        interval=span,
        shown=shown,
        tone=tone(estimate, higher_is_better=bool(higher_is_better)) if coloured else "",
        mark=(letters or {}).get(reason, ""),
        note=_tooltip(estimate, span, reason),
        where=estimate.get("site") or "",
    )


def reasons(value: object) -> Iterator[str]:
    """Yield why estimates are missing, anywhere inside a part of the results, in order.

    >>> list(reasons([{"value": None, "reason": "one class only"}, {"value": 0.5}]))
    ['one class only']
    """
    if isinstance(value, Mapping):
        if "value" in value and isinstance(value.get("reason"), str):
            yield value["reason"]
        for inner in value.values():
            yield from reasons(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from reasons(inner)


def marks(value: object) -> dict[str, str]:
    """Return reason -> footnote letter for all reasons inside a part of the results.

    >>> marks([{"value": None, "reason": "one class only"}])
    {'one class only': 'a'}
    """
    found = dict.fromkeys(reasons(value))
    return {reason: _letters(i) for i, reason in enumerate(found)}


def size(count: float | None) -> str:
    """Return a number of bytes in decimal units.

    >>> size(812), size(27_800_000), size(1.17e11)
    ('812 B', '27.8 MB', '117 GB')
    """
    if count is None:
        return BLANK
    scaled, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while scaled >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    digits = 0 if units[0] == "B" or scaled >= 99.95 else 1
    return f"{scaled:.{digits}f} {units[0]}"


def seconds(count: float | None) -> str:
    """Return a duration in two units at most.

    >>> seconds(4.21), seconds(200), seconds(3900)
    ('4.2 s', '3 min 20 s', '1 h 5 min')
    """
    if count is None:
        return BLANK
    if count < 59.5:
        return f"{count:.1f} s" if count < 9.95 else f"{count:.0f} s"
    minutes, rest = divmod(round(count), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(count / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def one_line(text: object) -> str:
    r"""Return a text in one line without control characters, safe for a terminal or a log.

    >>> one_line("nord\x1b[31m\n")
    'nord�[31m�'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))


def _tooltip(estimate: EstimateJson, span: str, reason: str) -> str:
    spread = estimate.get("seed_sd")
    parts = [
        f"95% interval {span}" if span else "",
        f"SD over seeds {number(spread)}" if spread is not None else "",
        reason,
    ]
    return "; ".join(part for part in parts if part)


def _letters(index: int) -> str:
    more, last = divmod(index, 26)
    return (_letters(more - 1) if more else "") + string.ascii_lowercase[last]

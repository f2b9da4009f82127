"""Privacy against utility: each arm's metric over the largest epsilon of its sites."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from markupsafe import Markup, escape

from fedrad.report.figures import AxisScale, scale_of

__all__ = ["Point", "curve", "points"]

_WIDTH, _HEIGHT = 520, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 30, 14, 44


@dataclass(frozen=True)
class Point:
    """One arm: its largest epsilon over sites (None without privacy), and two estimates.

    Args:
        arm: its name.
        epsilon: of the site that pays most, or None.
        mean: over sites: value, low, high.
        worst: of the worst site.
    """

    arm: str
    epsilon: float | None
    mean: Mapping[str, Any]
    worst: Mapping[str, Any]


def points(results: Mapping[str, Any]) -> list[Point]:
    """Return the arms that have a result in the primary metric, the most private first.

    An arm with privacy but without noise promises nothing, and stands with those without.
    """
    metric = (results["experiment"].get("primary") or {}).get("metric")
    metric = metric or results["metrics"][0]["name"]
    asked: dict[str, list[float | None]] = {}
    for row in (results.get("privacy") or {"sites": []})["sites"]:
        asked.setdefault(row["arm"], []).append(row["patient_epsilon"])
    found = []
    for arm in results["arms"]:
        columns = (arm.get("columns") or {}).get(metric) or {}
        mean, worst = columns.get("mean"), columns.get("worst")
        if not mean or not worst or mean.get("value") is None or worst.get("value") is None:
            continue
        own = asked.get(arm["name"], [None])
        known = [epsilon for epsilon in own if epsilon is not None]
        epsilon = max(known) if len(known) == len(own) else None
        found.append(Point(arm["name"], epsilon, mean, worst))
    return sorted(found, key=lambda p: (p.epsilon is None, p.epsilon or 0.0))


def curve(results: Mapping[str, Any]) -> Markup | None:
    """Return the curve as inline SVG, or None where fewer than two arms can be shown."""
    found = points(results)
    private = [p for p in found if p.epsilon is not None]
    if not private or len(found) < 2:
        return None
    scale = scale_of(
        e.get(key) for p in found for e in (p.mean, p.worst) for key in ("value", "low", "high")
    )
    places = _places(found)
    parts = [_axis(scale), *(_ticks(found, places))]
    for p, x in zip(found, places, strict=True):
        parts += [_mark(p.worst, x + 5, scale, "hollow"), _mark(p.mean, x - 5, scale, "")]
    named = escape(
        "; ".join(f"{p.arm} {p.mean['value']:.3f}, worst {p.worst['value']:.3f}" for p in found)
    )
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="Privacy against utility: {named}">{"".join(parts)}</svg>'
    )


def _places(found: Sequence[Point]) -> list[float]:
    """Return each arm's x: epsilon on a logarithmic axis, what has none at the right."""
    logs = [log(p.epsilon) for p in found if p.epsilon]
    low, high = min(logs), max(logs)
    inner = _WIDTH - _LEFT - _RIGHT - 110
    beyond = _WIDTH - _RIGHT - 20
    placed = []
    for p in found:
        share = 0.5 if high == low else (log(p.epsilon or 1.0) - low) / (high - low)
        placed.append(_LEFT + 20 + share * inner if p.epsilon else float(beyond))
    return placed


def _y(value: float, scale: AxisScale) -> float:
    return _TOP + (100 - scale.at(value)) / 100 * (_HEIGHT - _TOP - _BOTTOM)


def _axis(scale: AxisScale) -> str:
    lines = []
    for tick in scale.ticks():
        y = _y(tick, scale)
        lines.append(
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    return "".join(lines)


def _ticks(found: Sequence[Point], places: Sequence[float]) -> list[str]:
    return [
        f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 26}" text-anchor="middle">'
        f"{'no epsilon' if p.epsilon is None else f'{p.epsilon:.2g}'}</text>"
        f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">'
        f"{escape(p.arm)}</text>"
        for p, x in zip(found, places, strict=True)
    ]


def _mark(estimate: Mapping[str, Any], x: float, scale: AxisScale, tone: str) -> str:
    y = _y(estimate["value"], scale)
    whisker = ""
    if estimate.get("low") is not None and estimate.get("high") is not None:
        low, high = _y(estimate["low"], scale), _y(estimate["high"], scale)
        whisker = (
            f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}"/>'
        )
    return f'{whisker}<circle class="point {tone}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'

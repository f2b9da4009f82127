"""The page's charts, as inline SVG: no library, no request, coloured by the page's own style sheet.

Rows of intervals have no viewBox: places are in percent, so a row stretches with its table cell
while dots stay round and lines stay thin. What has a size in pixels sits in a nested svg.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fedrad.report.formatting import EstimateJson, number

__all__ = ["AxisScale", "CurveLine", "axis", "curves", "interval_row", "scale_of", "swatch", "tag"]

WIDTH, HEIGHT = 260, 150  # of a panel of curves, in its own units
LEFT, TOP, BOTTOM = 34, 8, 20  # the panel's margins


@dataclass(frozen=True)
class AxisScale:
    """A linear axis from low to high."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return the place of a value in percent of the axis.

        >>> AxisScale(0.5, 1.0).at(0.75)
        50.0
        """
        return round(100 * (value - self.low) / (self.high - self.low), 3)

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most `most` round values on the axis.

        >>> AxisScale(0.68, 0.93).ticks()
        [0.7, 0.75, 0.8, 0.85, 0.9]
        """
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(frozen=True)
class CurveLine:
    """One arm's curve: its name, its place in the legend, and its points (None breaks the line)."""

    name: str
    index: int
    rounds: Sequence[float]
    values: Sequence[float | None]


def scale_of(values: Iterable[float | None], *, pad: float = 0.06) -> AxisScale:
    """Return a scale that holds all values, with a margin at both ends.

    >>> scale_of([0.0, None, 1.0], pad=0.5)
    AxisScale(low=-0.5, high=1.5)
    """
    known = [v for v in values if v is not None and math.isfinite(v)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    return AxisScale(low - pad * (high - low), high + pad * (high - low))


def tag(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """Return an element; content and attribute values are escaped, `_` in names becomes `-`.

    >>> str(tag("text", "<b>", class_="tick", x=1))
    '<text class="tick" x="1">&lt;b&gt;</text>'
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    written = Markup("").join(Markup(' {}="{}"').format(k, v) for k, v in pairs if v is not None)
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, content, Markup(name))


def interval_row(
    estimate: EstimateJson | None,
    scale: AxisScale,
    *,
    tone: str = "",
    reference: float | None = None,
    sides: tuple[str, str] | None = None,
    main: bool = False,
) -> Markup:
    """Return one row of a forest plot: a point and its 95% interval.

    Args:
        estimate: value, low, high; without an interval the point is hollow, without a value absent.
        scale: shared by the rows of a plot; what lies outside becomes an arrow at the edge.
        tone: "better", "worse" or "", for the colour.
        reference: where to draw the line to compare with.
        sides: classes of the areas left and right of the reference.
        main: draw a diamond, for the row that sums up the others.
    """
    parts: list[Markup] = []
    if reference is not None:
        x = scale.at(reference)
        if sides is not None:
            parts.append(_area(0, x, sides[0]))
            parts.append(_area(x, 100 - x, sides[1]))
        parts.append(_line(x, x, "reference"))
    if estimate is not None and estimate.get("value") is not None:
        parts.extend(_whisker(estimate, scale, tone, main=main))
    return tag("svg", Markup("").join(parts), class_="row", aria_hidden="true")


def axis(scale: AxisScale, *, signed: bool = False) -> Markup:
    """Return the axis below the rows of a forest plot."""
    ticks = scale.ticks(5)
    digits = _digits(ticks)
    parts = [tag("line", class_="axis", x1="0%", x2="100%", y1=0.5, y2=0.5)]
    for value in ticks:
        x = scale.at(value)
        parts.append(tag("line", class_="axis", x1=f"{x}%", x2=f"{x}%", y1=0, y2=5))
        label = number(value, digits=digits, signed=signed)
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        parts.append(tag("text", label, class_="tick", x=f"{x}%", y=18, text_anchor=anchor))
    return tag("svg", Markup("").join(parts), class_="scale", aria_hidden="true")


def curves(lines: Sequence[CurveLine], scale: AxisScale, *, rounds: float, label: str) -> Markup:
    """Return one panel of curves over the rounds.

    Args:
        lines: one an arm.
        scale: of the values, shared by all panels.
        rounds: the last round, the right end of the axis.
        label: what a screen reader says of the panel.
    """
    parts = [*_grid(scale), *_round_ticks(rounds)]
    for line in lines:
        title = tag("title", line.name)
        points = list(zip(line.rounds, line.values, strict=False))
        d = _path([(_x(r, rounds), None if v is None else _y(v, scale)) for r, v in points])
        parts.append(tag("path", title, class_=f"curve arm-{line.index % 8}", d=d))
        known = [(r, v) for r, v in points if v is not None]
        if known:
            x, y = _x(known[-1][0], rounds), _y(known[-1][1], scale)
            parts.append(tag("circle", class_=f"end arm-{line.index % 8}", cx=x, cy=y, r=2.4))
    return tag(
        "svg",
        Markup("").join(parts),
        class_="panel",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
    )


def swatch(index: int) -> Markup:
    """Return the legend's sample of an arm's line."""
    line = tag("path", class_=f"curve arm-{index % 8}", d="M1 6H27")
    return tag("svg", line, class_="swatch", width=28, height=12, aria_hidden="true")


def _whisker(
    estimate: EstimateJson, scale: AxisScale, tone: str, *, main: bool
) -> Iterable[Markup]:
    x = scale.at(estimate["value"])
    if not 0 <= x <= 100:  # off the scale: an arrow at the edge that it left by
        d = "M-1 -5L-7 0L-1 5Z" if x < 0 else "M1 -5L7 0L1 5Z"
        yield _placed(tag("path", class_=f"point {tone}".strip(), d=d), 0 if x < 0 else 100)
        return
    low, high = estimate.get("low"), estimate.get("high")
    known = low is not None and high is not None
    if low is not None and high is not None:
        left, right = max(scale.at(low), 0), min(scale.at(high), 100)
        style = f"whisker {tone}".strip()
        yield tag("line", class_=style, x1=f"{left}%", x2=f"{right}%", y1="50%", y2="50%")
        for end in (left, right):
            yield _placed(tag("path", class_=style, d="M0 -4V4"), end)
    style = f"point {tone}".strip() if known else f"point hollow {tone}".strip()
    if main:
        yield _placed(tag("path", class_=style, d="M0 -8.5L8.5 0L0 8.5L-8.5 0Z"), x)
    else:
        yield tag("circle", class_=style, cx=f"{x}%", cy="50%", r=5)


def _placed(shape: Markup, x: float) -> Markup:
    return tag("svg", shape, class_="open", x=f"{x}%", y="50%")


def _line(x1: float, x2: float, style: str) -> Markup:
    return tag("line", class_=style, x1=f"{x1}%", x2=f"{x2}%", y1="0%", y2="100%")


def _area(x: float, width: float, style: str) -> Markup:
    return tag("rect", class_=style, x=f"{x}%", width=f"{max(width, 0)}%", y="0%", height="100%")


def _x(round_: float, rounds: float) -> float:
    return round(LEFT + (WIDTH - LEFT - 6) * round_ / max(rounds, 1), 2)


def _y(value: float, scale: AxisScale) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - scale.at(value) / 100), 2)


def _grid(scale: AxisScale) -> Iterable[Markup]:
    ticks = scale.ticks(5)
    for value in ticks:
        y = _y(value, scale)
        yield tag("line", class_="grid", x1=LEFT, x2=WIDTH - 6, y1=y, y2=y)
        text = number(value, digits=_digits(ticks))
        yield tag("text", text, class_="tick", x=LEFT - 5, y=y + 4, text_anchor="end")


def _round_ticks(rounds: float) -> Iterable[Markup]:
    for value in dict.fromkeys((0, round(rounds / 2), round(rounds))):
        anchor = "end" if value == round(rounds) else "middle"
        x = _x(value, rounds)
        yield tag("text", str(value), class_="tick", x=x, y=HEIGHT - 4, text_anchor=anchor)


def _path(points: Iterable[tuple[float, float | None]]) -> str:
    steps, pen_down = [], False
    for x, y in points:
        if y is not None:
            steps.append(f"{'L' if pen_down else 'M'}{x} {y}")
        pen_down = y is not None
    return "".join(steps)


def _digits(ticks: Sequence[float]) -> int:
    step = min((b - a for a, b in pairwise(ticks)), default=0.1)
    return max(0, -math.floor(math.log10(step) + 1e-9))

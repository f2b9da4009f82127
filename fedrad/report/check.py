"""What `fedrad check` and `fedrad list` print."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fedrad.algorithms import ALGORITHMS, WRAPPERS
from fedrad.config import Experiment
from fedrad.data import ADAPTERS, PARTITIONERS, TRANSFORMS
from fedrad.errors import ConfigError
from fedrad.metrics import METRICS
from fedrad.models import MODELS
from fedrad.privacy import PRIVACY
from fedrad.registry import nearest, options_of
from fedrad.report.cuts import cut_tables
from fedrad.report.many_sites import ONE_BY_ONE, sites_in_short, spread
from fedrad.training.optimizers import OPTIMIZERS

__all__ = ["plan_tables", "table_of_names"]

TABLES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "adapters": ADAPTERS,
    "algorithms": ALGORITHMS,
    "metrics": METRICS,
    "models": MODELS,
    "optimizers": OPTIMIZERS,
    "partitioners": PARTITIONERS,
    "privacy": PRIVACY,
    "transforms": TRANSFORMS,
    "wrappers": WRAPPERS,
}


def table_of_names(kind: str = "") -> Table:
    """Return the names that YAML may use, each with its options and its first sentence.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind and kind not in TABLES:
        raise ConfigError(f"'{kind}' is not one of {', '.join(TABLES)}{nearest(kind, TABLES)}")
    table = Table("table", "name", "options", "what it does", box=SIMPLE_HEAD)
    for title in [kind] if kind else TABLES:
        for name, builder in sorted(TABLES[title].items()):
            options = ", ".join(
                _option(k, p.default, p.empty) for k, p in options_of(builder).items()
            )
            first = (builder.__doc__ or "").strip().splitlines()[0]
            table.add_row(title, Text(name), Text(options), Text(first))
    return table


def _option(name: str, default: Any, empty: Any) -> str:
    return name if default is empty else f"{name}={default}"


def plan_tables(experiment: Experiment, plan: Mapping[str, Any]) -> list[RenderableType]:
    """Return the tables of a plan (`plan.plan_of`), for a terminal."""
    return [
        _heading(experiment, plan),
        *(
            [_in_short(plan)]
            if len(plan["sites"]) > ONE_BY_ONE
            else [_sites(plan), _distances(plan)]
        ),
        _arms(plan),
        plan["budget"],
        *cut_tables(plan["cuts"]),
    ]


def _heading(experiment: Experiment, plan: Mapping[str, Any]) -> Text:
    arms, seeds = len(experiment.arm_names), len(experiment.seeds)
    model = plan["model"]
    primary = experiment.primary
    asked = (
        f"{primary.arm} against {primary.against}, by {primary.metric}"
        if primary
        else "none declared: every comparison will be called exploratory"
    )
    return Text(
        f"{experiment.name}: {arms} arms x {seeds} seeds x {experiment.rounds} rounds\n"
        f"model: {model['name']}, {model['parameters']:,} parameters; one exchange with a site is "
        f"{_bytes(model['bytes'])} down and {_bytes(model['bytes'])} up a round\n"
        f"primary comparison: {asked}\n"
    )


def _sites(plan: Mapping[str, Any]) -> Table:
    caption = _LEGEND + _left_out(plan)
    table = Table(title="Sites", caption=caption, box=SIMPLE_HEAD, title_justify="left")
    # A name that is cut off names nobody.
    table.add_column("site", overflow="fold")
    for column in ("patients", "train", "val", "test", "labels in train", "in test"):
        table.add_column(column)
    table.add_column("AUROC", justify="right")
    table.add_column("accuracy", justify="right")
    for site in plan["sites"]:
        widths = plan["precision"][site["name"]]
        table.add_row(
            site["name"] + (" (held out)" if site["held_out"] else ""),
            str(sum(site["patients"].values())),
            *(str(site["images"][name]) for name in ("train", "val", "test")),
            _labels(site["labels"]["train"]),
            _labels(site["labels"]["test"]),
            _width(widths["auroc"]),
            _width(widths["accuracy"]),
        )
    return table


def _in_short(plan: Mapping[str, Any]) -> Table:
    """Return how many sites are spread, in place of a row for each and their distances."""
    table = Table(title=f"{len(plan['sites'])} sites", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for column in ("least", "lowest tenth", "median", "highest tenth", "most"):
        table.add_column(column, justify="right")
    found = plan["heterogeneity"]
    rows = sites_in_short(plan["sites"], found["label_share"])
    for key, title in (("auroc", "AUROC of .85"), ("accuracy", "accuracy of .90")):
        widths = [width[key] for width in plan["precision"].values() if width[key] is not None]
        rows += [spread(f"± of {title}", widths, _width)] if widths else []
    for row in rows:
        table.add_row(row["name"], *row["cells"])
    farthest = found["farthest"]
    apart = (
        ""
        if farthest is None
        else f"Jensen-Shannon distance of label shares up to {farthest:.2f}; "
    )
    table.caption = (
        "Images and patients of a site; how precisely its test set can tell an AUROC and an "
        "accuracy (half widths of 95 % intervals). "
        f"{apart}Gini of sizes {found['size_gini']:.2f}; {found['effective_sites']:.1f} "
        "effective sites."
        f"{_left_out(plan)}"
    )
    return table


def _left_out(plan: Mapping[str, Any]) -> str:
    count = sum(site["unlabelled"] for site in plan["sites"])
    return f" {count:,} images without any label are left out." if count else ""


_LEGEND = (
    "Images per split; labels as positive+ negative-. Last columns: how precisely each test set "
    "can tell an AUROC of .85 and an accuracy of .90 (half widths of 95 % intervals)."
)


def _labels(labels: Mapping[str, Any]) -> str:
    def one(label: str, counts: Any) -> str:
        if isinstance(counts, int):
            return f"{label} {counts}"
        not_read = f" {counts['not_read']}?" if counts["not_read"] else ""
        told = f"{counts['positive']}+ {counts['negative']}-{not_read}"
        return told if len(labels) == 1 else f"{label} {told}"

    return "\n".join(one(label, counts) for label, counts in labels.items())


def _distances(plan: Mapping[str, Any]) -> Table:
    found = plan["heterogeneity"]
    title = "Jensen-Shannon distance of label shares, 0 alike to 1 disjoint"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for site in found["sites"]:
        table.add_column(site, justify="right")
    for site, row in zip(found["sites"], found["jensen_shannon"], strict=True):
        table.add_row(site, *("-" if value is None else f"{value:.2f}" for value in row))
    table.caption = (
        f"Gini of sizes {found['size_gini']:.2f}; {found['effective_sites']:.1f} effective sites"
    )
    return table


def _arms(plan: Mapping[str, Any]) -> Table:
    table = Table(title="Arms, per seed", box=SIMPLE_HEAD, title_justify="left")
    for column in ("arm", "algorithm", "models"):
        table.add_column(column)
    for column in ("gradient steps", "of one model", "images seen"):
        table.add_column(column, justify="right")
    for arm in plan["arms"]:
        steps = arm["gradient_steps"]
        table.add_row(
            arm["name"],
            arm["algorithm"],
            arm["models"],
            f"{steps['total']:,}",
            f"{steps['one_model']:,}",
            f"{arm['images_seen']:,}",
        )
    return table


def _width(value: float | None) -> str:
    return "-" if value is None else f"±{value:.3f}"


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"

"""A made-up results.json: four training hospitals, one held out, seven arms, two in trouble."""

from typing import Any

Json = dict[str, Any]

SITES = ("nord", "ost", "sued", "west")
HELD_OUT = "insel"
SEEDS = [0, 1, 2]
FEW = "west's test set has 7 positive and 31 negative images; an interval needs 10 of each"
NO_THRESHOLD = "insel has no tuning images to choose a threshold on"
DIVERGED = "seed 1, round 12, ost: the loss is no finite number (learning rate 0.3)"
COLLAPSED = "97% of its scores lie in one bin: it says nearly the same of every image"

# arm -> (algorithm, models, mean AUROC over sites, per site AUROC, external AUROC)
LEVELS: dict[str, tuple[str, str, tuple[float, ...], float]] = {
    "local": ("local", "personal", (0.842, 0.781, 0.802, 0.655), 0.704),
    "centralized": ("centralized", "global", (0.881, 0.862, 0.869, 0.842), 0.838),
    "fedavg": ("fedavg", "global", (0.861, 0.848, 0.851, 0.823), 0.821),
    "fedprox": ("fedprox (mu 0.01)", "global", (0.858, 0.841, 0.853, 0.816), 0.824),
    "finetune": ("fedavg, then finetune (steps 40)", "both", (0.872, 0.851, 0.856, 0.818), 0.801),
    "fedadam": ("fedadam (server_lr 0.1)", "global", (0.512, 0.488, 0.503, 0.497), 0.5),
}
TESTS = {
    "nord": (212, 71),
    "ost": (128, 33),
    "sued": (164, 58),
    "west": (38, 7),
    "insel": (120, 44),
}


def estimate(value: float, half: float | None, reason: str | None = None) -> Json:
    """Return an Estimate with a symmetric interval."""
    low, high = (None, None) if half is None else (round(value - half, 4), round(value + half, 4))
    spread = None if half is None else round(half / 6, 4)
    return {"value": round(value, 4), "low": low, "high": high, "seed_sd": spread, "reason": reason}


def undefined(reason: str) -> Json:
    """Return an Estimate without a value."""
    return {"value": None, "low": None, "high": None, "seed_sd": None, "reason": reason}


def at(site: str, value: float) -> Json:
    """Return an AUROC on a site's test set; west is too small for an interval."""
    images, _ = TESTS[site]
    return estimate(value, None, FEW) if site == "west" else estimate(value, 0.62 / images**0.5)


def columns(levels: tuple[float, ...]) -> Json:
    """Return an arm's columns for three metrics."""
    mean = sum(levels) / len(levels)
    worst = min(range(len(levels)), key=lambda i: levels[i])
    last = at(SITES[worst], levels[worst]) | {"site": SITES[worst]}
    few = undefined(FEW) | {"site": "west"}
    return {
        "auroc": column(mean, 0.031, last),
        "brier": column(0.46 - 0.38 * mean, 0.012, last | {"value": 0.49 - 0.38 * mean}),
        "sensitivity": column(1.6 * mean - 0.74, 0.06, few),
    }


def column(mean: float, half: float, worst: Json) -> Json:
    """Return a metric's means over sites, its value on all images, and the sites' spread."""
    return {
        "mean": estimate(mean, half),
        "weighted": estimate(mean, 0.9 * half),
        "pooled": estimate(mean, 0.8 * half),
        "worst": worst,
        "best": estimate(mean + 0.02, half) | {"site": SITES[0]},
        "site_sd": 0.031,
    }


def external(level: float) -> Json:
    """Return an arm's metrics on the held-out site."""
    return {
        "auroc": {HELD_OUT: at(HELD_OUT, level)},
        "brier": {HELD_OUT: estimate(0.46 - 0.38 * level, 0.02)},
        "sensitivity": {HELD_OUT: undefined(NO_THRESHOLD)},
    }


def own(name: str, levels: tuple[float, ...]) -> list[Json]:
    """Return how an arm does against each site's own model."""
    found = []
    for site, level, alone in zip(SITES, levels, LEVELS["local"][2], strict=True):
        if site == "west":
            difference, verdict = estimate(level - alone, None, FEW), "not shown"
        else:
            difference = estimate(level - alone, 0.34 / TESTS[site][0] ** 0.5)
            shown = difference["low"] > 0 or difference["high"] < 0
            verdict = ("better" if level > alone else "worse") if shown else "not shown"
        found.append({"site": site, "difference": difference, "verdict": verdict})
    return found


def curves(name: str, levels: tuple[float, ...]) -> Json:
    """Return saturating curves that end at an arm's levels."""
    rounds = list(range(2, 41, 2))
    found = {}
    for i, (site, level) in enumerate(zip(SITES, levels, strict=True)):
        wave = [0.012 * (((r * (7 + i + len(name))) % 11) / 11 - 0.5) for r in rounds]
        value = [
            round(0.5 + (level - 0.5) * (1 - 0.88**r) + w, 4)
            for r, w in zip(rounds, wave, strict=True)
        ]
        found[site] = {"round": rounds, "value": value, "loss": [round(1.1 - v, 4) for v in value]}
    return found


def arm(name: str) -> Json:
    """Return a finished arm."""
    algorithm, models, levels, outside = LEVELS[name]
    alone, pooled = LEVELS["local"][2], LEVELS["centralized"][2]
    gain, gap = sum(levels) - sum(alone), sum(pooled) - sum(alone)
    sends = name not in ("local", "centralized")
    return {
        "name": name,
        "algorithm": algorithm,
        "models": models,
        "status": "finished",
        "reason": None,
        "gradient_steps": {"total": 6400, "one_model": 6400 if name == "centralized" else 1600},
        "images_seen": 204_800,
        "bytes": {"up": 62_400_000 if sends else 0, "down": 63_100_000 if sends else 390_000},
        "seconds": {"centralized": 171.0, "local": 166.2}.get(name, 184.6 + len(name)),
        "columns": columns(levels),
        "global_columns": columns(LEVELS["fedavg"][2]) if models == "both" else None,
        "external": external(outside),
        "triple": None
        if name == "local"
        else {
            "on_site": estimate(gain / sum(alone), 0.04),
            "off_site": estimate(gain / sum(alone) + 0.07, 0.05),
            "gap_closed": estimate(gain / gap, 0.28),
        },
        "beats_own_model": [] if name == "local" else own(name, levels),
        "collapse": COLLAPSED if name == "fedadam" else None,
        "curves": curves(name, levels),
    }


def stopped(name: str, algorithm: str, reason: str) -> Json:
    """Return an arm that did not finish."""
    empty = {"columns": {}, "external": {}, "beats_own_model": [], "curves": {}, "triple": None}
    return {
        **arm("local"),
        **empty,
        "name": name,
        "algorithm": algorithm,
        "models": "global",
        "status": "stopped",
        "reason": reason,
        "bytes": {"up": 18_700_000, "down": 18_900_000},
        "seconds": 51.0,
    }


def matrix() -> Json:
    """Return the site x site matrix of AUROC."""
    names = (*SITES, HELD_OUT)
    rows = []
    for i, (site, level) in enumerate(zip(SITES, LEVELS["local"][2], strict=True)):
        cells = [
            at(n, level if n == site else level - 0.06 - 0.017 * ((i + j) % 4))
            for j, n in enumerate(names)
        ]
        rows.append({"arm": "local", "model": site, "cells": cells})
    for name, (_, models, levels, outside) in LEVELS.items():
        if models == "global":
            cells = [at(n, v) for n, v in zip(names, (*levels, outside), strict=True)]
            rows.append({"arm": name, "model": "global", "cells": cells})
    for i, (site, level) in enumerate(zip(SITES, LEVELS["finetune"][2], strict=True)):
        cells = [
            at(n, level if n == site else level - 0.02 - 0.011 * ((i + j) % 3))
            for j, n in enumerate(names)
        ]
        rows.append({"arm": "finetune", "model": site, "cells": cells})
    heads = [
        {"site": n, "held_out": n == HELD_OUT, "images": TESTS[n][0], "positives": TESTS[n][1]}
        for n in names
    ]
    return {"metric": "auroc", "columns": heads, "rows": rows}


def comparisons() -> list[Json]:
    """Return all arms against training alone, the primary first."""
    alone = sum(LEVELS["local"][2]) / 4
    names = ("fedavg", "centralized", "fedprox", "finetune", "fedadam")
    return [comparison(name, sum(LEVELS[name][2]) / 4 - alone) for name in names]


def comparison(name: str, value: float) -> Json:
    """Return one comparison with training alone."""
    primary, way = name == "fedavg", "better" if value > 0 else "worse"
    return {
        "arm": name,
        "against": "local",
        "metric": "auroc",
        "primary": primary,
        "difference": estimate(value, 0.034),
        "p": 0.002,
        "p_adjusted": 0.002 if primary else 0.008,
        "supported": True,
        "sentence": f"{name} is {way} than local: AUROC {value:+.3f}, mean over sites.",
    }


def site(name: str) -> Json:
    """Return who took part; a held-out site has test images only."""
    test, positives = TESTS[name]
    train = 0 if name == HELD_OUT else 4 * test
    images = {"train": train, "val": train // 5, "test": test}
    ill = {split: n * positives // test for split, n in images.items()}
    labels = {
        split: {"lesion": {"negative": n - ill[split], "positive": ill[split], "not_read": 0}}
        for split, n in images.items()
    }
    patients = {split: n * 2 // 3 for split, n in images.items()}
    held_out = name == HELD_OUT
    return {
        "name": name,
        "held_out": held_out,
        "patients": patients,
        "images": images,
        "labels": labels,
    }


TEXT = """\
# fedrad run experiments/four-hospitals.yaml
name: four-hospitals
task: {name: binary, labels: [lesion], input: [1, 64, 64]}
data: {name: phantom, hospitals: 5}
held_out_sites: [insel]
model: {name: cnn, width: 16}
local: {steps: 40, batch: 32}
rounds: 40
seeds: [0, 1, 2]
arms:
  local: {algorithm: local}
  centralized: {algorithm: centralized}
  fedavg: {algorithm: fedavg}
  fedprox: {algorithm: {name: fedprox, mu: 0.01}}
  finetune: {algorithm: fedavg, wrap: [{name: finetune, steps: 40}]}
  scaffold: {algorithm: scaffold, local: {optimizer: {name: sgd, lr: 0.3}}}
  fedadam: {algorithm: {name: fedadam, server_lr: 0.1}}
primary: {arm: fedavg, against: local, metric: auroc}
"""


HEADLINE = [
    "fedavg is better than local: AUROC +0.076 (95% interval +0.042 to +0.110), mean over sites; "
    "p = 0.002.",
    "fedavg against the model a site trains alone, AUROC at 4 sites: better at 2 (ost, sued), "
    "worse at none, not shown at 2 (nord, west).",
    "fedavg closes 81% (95% interval 53% to 109%) of the gap between local and pooled.",
    f"fedadam collapsed: {COLLAPSED}.",
    f"scaffold has no result: {DIVERGED}.",
]
NOTES = [
    "The hospitals are generated images: nothing here says how well a model reads real films.",
    "Intervals resample test patients and the 3 seeds together; from so few seeds the noise of "
    "training is only roughly known.",
    "Hyperparameters were not tuned arm by arm: fedadam and scaffold may do better with others.",
]


def metric(name: str, title: str, higher_is_better: bool) -> Json:
    """Return a metric."""
    return {"name": name, "title": title, "higher_is_better": higher_is_better}


def example() -> Json:
    """Return a fresh results dict that follows the schema."""
    names = list(SITES)
    apart = {"no": 0.11, "ns": 0.05, "nw": 0.21, "os": 0.08, "ow": 0.12, "sw": 0.18}
    distances = [[apart.get(min(a[0] + b[0], b[0] + a[0]), 0.0) for b in names] for a in names]
    return {
        "schema": 1,
        "experiment": {
            "name": "four-hospitals",
            "text": TEXT,
            "digest": "9f2c41d07ab3e65c",
            "command": "fedrad run experiments/four-hospitals.yaml",
            "task": {"name": "binary", "labels": ["lesion"], "input": [1, 64, 64]},
            "rounds": 40,
            "seeds": SEEDS,
            "primary": {"arm": "fedavg", "against": "local", "metric": "auroc"},
            "budget": "Every arm took 6,400 gradient steps in all.",
        },
        "environment": {
            "fedrad": "0.1.0",
            "torch": "2.15.0",
            "platform": "Linux-6.1-x86_64",
            "device": "cpu",
            "threads": 1,
            "finished": "2026-11-21T02:10:00+00:00",
        },
        "model": {"name": "cnn (width 16)", "parameters": 97_345, "bytes": 389_380},
        "sites": [site(name) for name in TESTS],
        "heterogeneity": {
            "sites": names,
            "label_share": {n: {"lesion": round(TESTS[n][1] / TESTS[n][0], 3)} for n in names},
            "jensen_shannon": distances,
            "size_gini": 0.27,
            "effective_sites": 3.3,
        },
        "metrics": [
            metric("auroc", "AUROC", True),
            metric("brier", "Brier score", False),
            metric("sensitivity", "Sensitivity at 90% specificity", True),
        ],
        "arms": [*(arm(n) for n in LEVELS), stopped("scaffold", "scaffold (option II)", DIVERGED)],
        "matrix": matrix(),
        "comparisons": comparisons(),
        "headline": HEADLINE,
        "notes": NOTES,
    }

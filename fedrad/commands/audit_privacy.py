"""`fedrad audit-privacy`: what an attacker finds of a site's patients, beside what is promised."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fedrad.config import Experiment
    from fedrad.data.base import SiteData
    from fedrad.privacy.membership import Attack
    from fedrad.runs import RunFolder
    from fedrad.training.local import LocalTask

__all__ = ["AUDIT_EXAMPLE", "audit_privacy"]

AUDIT_EXAMPLE = (
    "Example: [bold]fedrad audit-privacy experiments/privacy.yaml --site west --arm epsilon8[/bold]"
)

ATTACKED = (
    "the weights after the last round of the site training alone, without the other sites; the "
    "attacker knows the initial weights, and of each patient the images and labels"
)
_FILE = "audit.json"


def audit_privacy(
    file: Annotated[Path, typer.Argument(metavar="EXPERIMENT.YAML", show_default=False)],
    site: Annotated[str, typer.Option(help="Whose patients are attacked.")],
    arm: Annotated[str, typer.Option(help="With which arm's training.")],
    models: Annotated[
        int, typer.Option(help="Shadow models: half to learn from, half to attack.", min=16)
    ] = 64,
    seed: Annotated[
        int | None, typer.Option(help="One of the experiment's. Default: its first.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the file."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results. Default: runs/<experiment>.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", envvar="FEDRAD_DATA", help="Folder that data are under."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
) -> None:
    """Attack a site's training in simulation: was this patient in? Proves epsilon from below.

    Trains shadow models on random halves of the site's patients, and writes audit.json.
    """
    from rich.console import Console

    from fedrad.config import load_experiment
    from fedrad.privacy.membership import attack
    from fedrad.runs import RunFolder
    from fedrad.training.audit import shadows

    console = Console()
    experiment = load_experiment(file, set_ or [])
    number = _seed_of(experiment, seed)
    data = _data_of(experiment, arm, site, data_root)
    task = _task_of(experiment.arm(arm), data, number, device)
    folder = RunFolder(out or Path("runs") / experiment.name)
    with folder.locked():
        before = _audits(folder)
        with _progress(console, models) as done:
            found = shadows(task, models=models, rounds=experiment.arm(arm).rounds, done=done)
        promised = _promised(task)
        told = _told(task, promised, attack(found, delta=promised["delta"]), models)
        audits = {**before, arm: {**before.get(arm, {}), site: told}}
        path = folder.write(_FILE, json.dumps(audits, indent=1) + "\n")
    console.print(_table(arm, site, told))
    console.print(f"Audit: {path}", soft_wrap=True, highlight=False)


def _seed_of(experiment: "Experiment", seed: int | None) -> int:
    from fedrad.errors import ConfigError

    if seed is not None and seed not in experiment.seeds:
        known = ", ".join(map(str, experiment.seeds))
        raise ConfigError(f"--seed {seed} is not one of the experiment's seeds {known}")
    return experiment.seeds[0] if seed is None else seed


def _data_of(experiment: "Experiment", arm: str, site: str, root: Path | None) -> "SiteData":
    from fedrad.assemble import check_arms
    from fedrad.data.sites import federation_of
    from fedrad.errors import ConfigError
    from fedrad.registry import nearest, shown_names

    check_arms(experiment, [arm])
    federation = federation_of(experiment, root or Path())
    if site not in federation.training:
        hint = nearest(site, federation.training)
        known = shown_names(federation.training)
        raise ConfigError(f"--site {site}: is none of the sites that train, {known}{hint}")
    return federation.sites[site]


def _task_of(arm: "Experiment", data: "SiteData", seed: int, device: str) -> "LocalTask":
    """Return the site's task; what an audit of one site alone would miss is refused."""
    from fedrad.assemble import algorithm_of, device_of, local_task, model_of
    from fedrad.errors import ConfigError
    from fedrad.privacy.account import Simulated

    algorithm = algorithm_of(arm)
    if algorithm.pooled or algorithm.cut is not None:
        raise ConfigError("--arm: an audit is of a site that trains a whole model on its own data")
    if arm.local.class_weights != "none":
        raise ConfigError(
            "--arm: local.class_weights are made of all patients' labels, which would tell of "
            "patients who are out; say --set local.class_weights=none"
        )
    return local_task(
        arm, data, model_of(arm), seed=seed, device=device_of(device), account=Simulated()
    )


@contextmanager
def _progress(console: "Console", models: int) -> "Iterator[Callable[[int], None]]":
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        shown = bar.add_task("shadow models", total=models)
        yield lambda number: bar.update(shown, completed=number)


def _promised(task: "LocalTask") -> dict[str, Any]:
    """Return what the accountant says of a patient; without noise there is no epsilon."""
    from math import isfinite

    from fedrad.privacy.accountant import delta_for
    from fedrad.privacy.dp_sgd import rounded

    if task.private is None:
        delta = delta_for("auto", rounded(task.patients), where="privacy")
        return {"epsilon": None, "delta": delta, "accountant": None}
    plan = task.private.plan
    epsilon, delta = plan.for_patient()
    known = epsilon if isfinite(epsilon) else None
    return {"epsilon": known, "delta": delta, "accountant": plan.accountant}


def _told(
    task: "LocalTask", promised: Mapping[str, Any], attack: "Attack", models: int
) -> dict[str, Any]:
    from fedrad.privacy.membership import SOURCE

    return {
        "promised": promised,
        "lower_bound": {
            "epsilon": attack.bound,
            "confidence": 0.95,
            "of_all_patients": attack.of_all,
            "of_one_patient": attack.of_one,
            "most_that_could_show": attack.most,
            "guesses": attack.guesses,
            "right": attack.right,
            "coins": attack.coins,
        },
        "attack": {
            "source": SOURCE,
            "attacked": ATTACKED,
            "auroc": attack.auroc,
            "tpr_at_fpr": {f"{rate:g}": value for rate, value in attack.rates.items()},
        },
        "models": models,
        "patients": task.patients,
        "images": task.data.images("train"),
        "seed": task.seed,
    }


def _audits(folder: "RunFolder") -> dict[str, Any]:
    """Return the audits that are in the folder, by arm and site."""
    from fedrad.errors import RunError

    path = folder.path / _FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError as error:
        raise RunError(f"{_FILE} is damaged; remove it, or choose another --out") from error


def _table(arm: str, site: str, told: Mapping[str, Any]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    promised, bound, attack = told["promised"], told["lower_bound"], told["attack"]
    title = f"{arm} at {site}: {told['patients']} patients, {told['models']} shadow models"
    table = Table("", "found", title=title, title_justify="left", box=SIMPLE_HEAD)
    upper = "none: no noise" if promised["epsilon"] is None else f"{promised['epsilon']:.3g}"
    account = "" if promised["accountant"] is None else f" ({promised['accountant']})"
    table.add_row(f"epsilon promised, at most{account}", upper)
    table.add_row("epsilon proven by the attack, at least (95 %)", f"{bound['epsilon']:.3g}")
    table.add_row(
        "the most that so many models could prove", f"{bound['most_that_could_show']:.3g}"
    )
    table.add_row("delta of both", f"{promised['delta']:g}")
    table.add_row("attack's AUROC (0.5 is guessing)", f"{attack['auroc']:.3f}")
    for rate, value in attack["tpr_at_fpr"].items():
        share = "too few models" if value is None else f"{100 * value:.2g} %"
        table.add_row(f"members found at {100 * float(rate):g} % false alarms", share)
    table.caption = f"Attack: {attack['source']}. Attacked: {attack['attacked']}."
    return table

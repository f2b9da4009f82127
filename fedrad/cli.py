"""The command line. It imports nothing heavy until a command needs it."""

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedrad.commands import audit_privacy as audit
from fedrad.commands import coordinator, site, start  # noqa: F401 - start adds to site
from fedrad.commands.experiments import end, federation_for, read_experiment, selected_arms
from fedrad.commands.ledger import LEDGER_EXAMPLE, ledger
from fedrad.commands.provision import provision_command
from fedrad.commands.version import version_option
from fedrad.runtimes import Concurrency, Runtime, RuntimeName

__all__ = ["app", "main"]

app = typer.Typer(
    help="Federated and split learning for radiology: one YAML, honest comparisons.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.callback()(version_option)

File = Annotated[Path, typer.Argument(metavar="EXPERIMENT.YAML", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the file, such as rounds=5 or local.batch=16.",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        envvar="FEDRAD_DATA",
        help="Folder that the data's relative paths are under. Default: the current folder.",
    ),
]
Arms = Annotated[
    list[str] | None, typer.Option("--arm", help="Run only this arm. May be given more than once.")
]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Run only this seed. May be given more than once."),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the results. Default: runs/<experiment>.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes on a CPU, one thread each, for sites, arms and seeds at the same time. "
        "Default: one for each core. The results do not depend on it.",
        min=1,
    ),
]
RuntimeOption = Annotated[
    RuntimeName,
    typer.Option(help="local: processes of this machine. ray: Ray's, here or on a cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="auto|HOST:PORT",
        help="Join a running Ray cluster. Default: one is started here.",
    ),
]
Store = Annotated[
    int | None,
    typer.Option(
        "--object-store", metavar="MB", min=1, help="Shared memory of a Ray that is started here."
    ),
]
Dashboard = Annotated[
    bool, typer.Option("--dashboard", help="Serve Ray's web page, of a Ray that is started here.")
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile", help="Show where the workers' time went, and write it to profile.json."
    ),
]
Leakage = Annotated[
    bool,
    typer.Option(
        "--leakage", help="Attack what cut networks send, and report what the attack finds."
    ),
]
On = Annotated[
    Path | None,
    typer.Option(
        help="Run across the sites of this coordinator's kit, with the sites' own data.",
        metavar="KIT",
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda or cuda:1. A device that is not there is an error.")
]
Ways = Annotated[
    Concurrency,
    typer.Option(
        "--concurrency",
        help="How sites share one device. eager: one after the other. graph: one captured step for "
        "all; streams: a few side by side (both on a GPU). stacked: many as one small network. "
        "auto: the fastest of them on a GPU. The results are equal within rounding.",
    ),
]

_CTRL_C = 130
"""What typer ends with."""

Mbit = Annotated[
    float | None,
    typer.Option(
        help="Also say how long a round takes on a site's line of so many Mbit/s.", min=1e-3
    ),
]


@app.command(
    epilog="Examples: [bold]fedrad run experiments/quickstart.yaml --arm fedavg --set rounds=5 "
    "--out runs/try[/bold], or across hospitals [bold]fedrad run experiment.yaml --on "
    "kits/coordinator[/bold]"
)
def run(
    file: File,
    set_: Sets = None,
    arm: Arms = None,
    seed: Seeds = None,
    out: Out = None,
    data_root: Root = None,
    device: Device = "cpu",
    workers: Workers = None,
    concurrency: Ways = Concurrency.AUTO,
    runtime: RuntimeOption = RuntimeName.LOCAL,
    ray_address: Address = None,
    object_store: Store = None,
    dashboard: Dashboard = False,
    profile: Profile = False,
    leakage: Leakage = False,
    on: On = None,
) -> None:
    """Run an experiment: every arm and seed, then a table and a report page.

    If it is stopped, the same command goes on from the last finished round.
    """
    if on is not None:
        _run_on(on, file, set_ or [], arm, seed, out, device)
        return
    from fedrad.core.gc_tuning import raise_gc_threshold

    raise_gc_threshold()  # until the process is set up for training
    from rich.console import Console

    console = Console()
    if out is not None and out.exists() and not out.is_dir():
        from fedrad.errors import ConfigError

        raise ConfigError(f"--out {out}: is a file; results need a folder")
    where = Runtime(runtime, workers, ray_address, object_store, dashboard, concurrency)
    experiment = read_experiment(file, set_ or [])
    # Ray starts while torch is imported and the data are read.
    with where.started() as cluster:
        federation = federation_for(experiment, data_root, device, arm or ())

        from fedrad.report.oddities import oddities_told
        from fedrad.report.progress import make_progress
        from fedrad.rounds.arm_rounds import RunSpec
        from fedrad.runs import RunFolder

        for line in oddities_told(federation.oddities):
            console.print(line, highlight=False)
        arms, seeds = selected_arms(experiment, arm, seed)
        folder = RunFolder(out or Path("runs") / experiment.name)
        with make_progress(console) as progress:
            spec = RunSpec(experiment, arms, seeds, federation.held_out, folder, progress, profile)
            where.run(spec, federation, device, cluster)

    from fedrad.report.results import write_results
    from fedrad.report.tables import results_tables

    command = _command()
    results = write_results(
        folder, experiment, federation, command=command, device=device, leakage=leakage
    )
    for renderable in results_tables(results):
        console.print(renderable)
    if profile:
        from fedrad.report.profile import profile_table

        console.print(profile_table(folder))
    console.print(f"\nReport: {folder.path / 'report.html'}", soft_wrap=True, highlight=False)
    end(console, folder, experiment, arms, seeds)


@app.command(
    epilog="Example: [bold]fedrad check experiments/chest_xray.yaml --data-root ~/data[/bold]"
)
def check(file: File, set_: Sets = None, data_root: Root = None, mbit: Mbit = None) -> None:
    """Read an experiment and its data without training, and print what would run."""
    from rich.console import Console

    console = Console()
    experiment = read_experiment(file, set_ or [])
    federation = federation_for(experiment, data_root)

    from fedrad.report.check import plan_tables
    from fedrad.report.oddities import odd_lines
    from fedrad.report.plan import plan_of
    from fedrad.report.privacy import privacy_of, privacy_tables

    for renderable in plan_tables(experiment, plan_of(experiment, federation)):
        console.print(renderable)
    for renderable in privacy_tables(privacy_of(experiment, federation)):
        console.print(renderable)
    console.print(odd_lines(federation.oddities), highlight=False)
    if mbit is not None:
        from fedrad.commands.previews import bandwidth_table

        console.print(bandwidth_table(experiment, mbit, len(federation.training)))


@app.command(name="list", epilog="Example: [bold]fedrad list models[/bold]")
def list_(
    kind: Annotated[
        str, typer.Argument(help="algorithms, adapters, models, ...; default: all")
    ] = "",
) -> None:
    """Print the names that an experiment can use, and their options."""
    from rich.console import Console

    from fedrad.report.check import table_of_names

    Console().print(table_of_names(kind))


site.app.command(epilog=LEDGER_EXAMPLE)(ledger)
app.command(name="audit-privacy", epilog=audit.AUDIT_EXAMPLE)(audit.audit_privacy)
app.command(
    name="provision",
    epilog="Example: [bold]fedrad provision sites/federation.yaml --out kits[/bold]",
)(provision_command)
app.add_typer(site.app)
app.add_typer(coordinator.app)
app.command(epilog="Example: [bold]fedrad status kits/coordinator[/bold]")(coordinator.status)


def _run_on(
    kit: Path,
    file: Path,
    sets: list[str],
    arms: list[str] | None,
    seeds: list[int] | None,
    out: Path | None,
    device: str,
) -> None:
    from fedrad.commands.remote import run_on_federation
    from fedrad.config import load_experiment

    experiment = load_experiment(file, sets)
    # The text is checked before torch is imported.
    from fedrad.assemble import check_arms

    check_arms(experiment, arms or ())
    chosen = selected_arms(experiment, arms, seeds)
    run_on_federation(kit, experiment, *chosen, out, command=_command(), device=device)


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def main() -> None:
    """Run the command line; a mistake of the user's is one sentence, not a traceback."""
    from fedrad.errors import FedradError

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except FedradError as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(2)
    except MemoryError as error:
        typer.secho(
            f"MissingError: not enough memory on this machine ({error})", fg="red", err=True
        )
        sys.exit(2)
    except SystemExit as end:
        if end.code == _CTRL_C and sys.argv[1:2] == ["run"]:
            told = "\nStopped. The same command goes on from the last finished round."
            typer.secho(told, err=True)
        raise

"""`fedrad coordinator ...` and `fedrad status`: what the coordinator's people run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fedrad.deployment.coordinator.status import SiteStatus

__all__ = ["app", "status"]

app = typer.Typer(
    name="coordinator",
    help="What the coordinator's people run.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Kit = Annotated[Path, typer.Argument(metavar="KIT", show_default=False)]
_LATE_S = 60


@app.command(name="start", epilog="Example: [bold]fedrad coordinator start kits/coordinator[/bold]")
def start_coordinator(kit: Kit) -> None:
    """Run the server that sites connect to, until it is stopped."""
    from fedrad.deployment.coordinator.kit import CoordinatorKit
    from fedrad.deployment.coordinator.service import serve

    serve(CoordinatorKit.load(kit), lambda sentence: typer.echo(f"coordinator: {sentence}"))


@app.command(epilog="Example: [bold]fedrad coordinator health kits/coordinator[/bold]")
def health(kit: Kit) -> None:
    """Say whether the server is well; the exit code is 0 if it is."""
    from fedrad.deployment.coordinator.kit import CoordinatorKit
    from fedrad.deployment.coordinator.service import is_healthy

    well = is_healthy(CoordinatorKit.load(kit))
    typer.echo("well" if well else "not well: it does not answer")
    raise typer.Exit(0 if well else 1)


def status(
    kit: Kit, json_: Annotated[bool, typer.Option("--json", help="For a program.")] = False
) -> None:
    """Show the sites, the run that is on, and who is late."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from fedrad.deployment.coordinator.kit import CoordinatorKit
    from fedrad.deployment.coordinator.status import run_status, site_statuses

    loaded = CoordinatorKit.load(kit)
    run, sites = run_status(loaded), site_statuses(loaded)
    if json_:
        known = None if sites is None else [asdict(site) for site in sites]
        typer.echo(json.dumps({"sites": known, "run": run}))
        raise typer.Exit(0 if sites is not None else 1)
    console = Console(highlight=False)
    if sites is None:
        console.print("The coordinator's server does not answer; fedrad coordinator start.")
        raise typer.Exit(1)
    console.print(_table(sites))
    console.print(_sentence(run))


def _table(sites: "list[SiteStatus]") -> "Table":
    from rich.table import Table

    table = Table("site", "state", "since, UTC", "last seen", "fedrad", "device", "patients")
    for site in sites:
        told = site.told
        state = "never connected" if site.state == "registered" else site.state
        late = f", late: {site.late} s" if site.late > _LATE_S else ""
        since = site.since if site.state == "online" else ""
        columns = (str(told.get(key, "")) for key in ("fedrad", "device", "patients"))
        table.add_row(site.name, state + late, _moment(since), _moment(site.seen), *columns)
    return table


def _moment(told: str) -> str:
    """Return a moment of ISO 8601 as short as a table of 80 columns needs it.

    >>> _moment("2026-11-21T09:57:12.120001+00:00"), _moment("")
    ('11-21 09:57', '')
    """
    return told[5:16].replace("T", " ")


def _sentence(run: dict[str, Any] | None) -> str:
    if run is None:
        return "No run yet."
    where = ""
    if "arm" in run:
        where = f": {run['arm']} seed {run['seed']}, round {run['round']}/{run['rounds']}"
    if run["process"] is not None:
        waits = ", ".join(f"{site} ({late} s)" for site, late in sorted(run["waiting"].items()))
        return f"Run {run['experiment']}{where}" + (f"; waits for {waits}" if waits else "")
    how = "ended" if run.get("ended") else "was cut off; the same command goes on with it"
    return f"The last run, {run['experiment']}, {how}{where}"

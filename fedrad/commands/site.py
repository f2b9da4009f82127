"""`fedrad site ...`: what a hospital's own people run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedrad.config import Experiment

__all__ = ["app"]

app = typer.Typer(
    name="site",
    help="What a hospital's own people run.",
    epilog="In this order: [bold]fedrad site doctor site.yaml[/bold], then [bold]fedrad site "
    "preview site.yaml experiment.yaml[/bold], [bold]fedrad site approve experiment.yaml --site "
    "site.yaml[/bold] and [bold]fedrad site start site.yaml[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

SiteArgument = Annotated[Path, typer.Argument(metavar="SITE.YAML", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print plain values, for a program.")]


@app.command(epilog="Example: [bold]fedrad site keygen --out keys --name nord[/bold]")
def keygen(
    out: Annotated[Path, typer.Option(help="Folder that node.key and node.pub go to.")] = Path(),
    name: Annotated[str, typer.Option(help="The site's name, a comment in node.pub.")] = "fedrad",
) -> None:
    """Make the site's key on this machine, so that only its public half travels."""
    from fedrad.deployment.kits.keys import key_fingerprint, make_node_key, read_public_key
    from fedrad.errors import RunError

    private, public = out / "node.key", out / "node.pub"
    if private.exists():
        raise RunError(f"{private.name} exists already; a private key is never overwritten")
    make_node_key(private, public, comment=name)
    typer.echo(f"{private}  the private key, mode 0600: it must not leave this machine")
    typer.echo(
        f"{public}  to send to the organiser; key {key_fingerprint(read_public_key(public))}"
    )


@app.command(epilog="Example: [bold]fedrad site preview site.yaml experiments/x.yaml[/bold]")
def preview(
    site_file: SiteArgument,
    file: Annotated[Path, typer.Argument(metavar="EXPERIMENT.YAML", show_default=False)],
    json_: Json = False,
) -> None:
    """Show what an experiment would send from here: names, shapes, bytes. No connection is made."""
    import json

    from rich.console import Console

    from fedrad.assemble import algorithm_of
    from fedrad.commands.previews import as_json, preview_tables
    from fedrad.config import load_site_file
    from fedrad.deployment.site.policy_preview import preview_decision, reader_of, risks_of
    from fedrad.deployment.site.preview import exchanges_of, introduction

    site, experiment = load_site_file(site_file), _experiment(file)
    data = reader_of(site, experiment)
    verdict = preview_decision(site, experiment, data)
    pooled = [one for one in experiment.arm_names if algorithm_of(experiment.arm(one)).pooled]
    arms = [name for name in experiment.arm_names if name not in pooled]
    asked = [one for name in arms for one in exchanges_of(experiment, name)]
    found = [introduction(experiment), *asked]
    risks = risks_of(experiment, found, data)
    if json_:
        typer.echo(json.dumps(as_json(found, verdict, risks), indent=1))
        return
    console = Console()
    console.print(f"{experiment.name}, digest {experiment.digest()}", soft_wrap=True)
    for name in pooled:
        console.print(
            f"{name} is never asked of a site: it pools the data, as only a simulation can"
        )
    for renderable in preview_tables(found, verdict, risks):
        console.print(renderable)


@app.command(epilog="Example: [bold]fedrad site approve experiments/x.yaml --site site.yaml[/bold]")
def approve(
    file: Annotated[Path, typer.Argument(metavar="EXPERIMENT.YAML", show_default=False)],
    site_file: Annotated[Path, typer.Option("--site", help="The site's file.")] = Path("site.yaml"),
) -> None:
    """Add an experiment to those that the site's file allows; any change makes it another."""
    from fedrad.config import load_site_file
    from fedrad.config.writing import with_approved
    from fedrad.core.store import write_atomic

    site, experiment = load_site_file(site_file), _experiment(file)
    digest = experiment.digest()
    if digest in site.experiments:
        typer.echo(f"{experiment.name} is approved already: {digest}")
        return
    mode = site_file.stat().st_mode
    text = with_approved(site_file.read_text(encoding="utf-8"), digest, experiment.name)
    write_atomic(site_file, text.encode())
    site_file.chmod(mode)
    typer.echo(f"{site.name} lets in {experiment.name}: {digest}")
    typer.echo("Restart the site for it to hold.")


@app.command(epilog="Example: [bold]fedrad site audit site.yaml --verify[/bold]")
def audit(
    site_file: SiteArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no line was changed, lost or cut off.")
    ] = False,
    last: Annotated[int, typer.Option(help="How many of the last lines to show.", min=1)] = 20,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin a new log where both of its files are gone.")
    ] = False,
    json_: Json = False,
) -> None:
    """Show the log of every message in and out, or verify that it is whole."""
    import json
    from collections import deque

    from fedrad.commands.audit_lines import audit_lines
    from fedrad.config import load_site_file
    from fedrad.deployment.site.audit import AuditLog

    log = AuditLog(load_site_file(site_file).state_dir / "audit.jsonl")
    if restart:
        log.restart("the site's own people began a new log; the one before is gone")
    if verify:
        typer.echo(f"{log.verify()} lines, each bound to the one before; none changed or missing")
        if log.unfinished():
            typer.echo(
                "After them stands a line that was not written to its end: the disk was full, or "
                "the process ended. What it tells of had not left; the site drops it at its start."
            )
        return
    shown = deque(log.entries(), maxlen=last)
    typer.echo(json.dumps(list(shown), indent=1) if json_ else "\n".join(audit_lines(shown)))


def _experiment(file: Path) -> "Experiment":
    from fedrad.config import from_text, load_experiment
    from fedrad.errors import ConfigError

    # A canonical text, as it travels, is read as it is: sites listed in it keep their places.
    try:
        text = file.read_text(encoding="utf-8")
        experiment = from_text(text)
        if experiment.text() == text:
            return experiment
    except (OSError, UnicodeDecodeError, ConfigError):
        pass
    return load_experiment(file)


@app.command(epilog="Example: [bold]fedrad site doctor site.yaml[/bold]")
def doctor(
    site_file: SiteArgument,
    experiment: Annotated[
        Path | None, typer.Option(help="Read the data for this experiment's task.")
    ] = None,
    json_: Json = False,
) -> None:
    """Examine data, policy, machine and network before the site is started.

    Nothing but a probe of the connection (TCP, TLS) leaves.

    Exit code 0: green or amber. 1: something is red.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from fedrad.commands.findings import findings_table
    from fedrad.deployment.preflight import run_checks

    console = Console()
    findings = list(run_checks(site_file, _experiment(experiment) if experiment else None))
    if json_:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        console.print(findings_table(findings))
    if any(finding.colour == "red" for finding in findings):
        raise typer.Exit(1)

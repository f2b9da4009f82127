"""`fedrad provision`: startup kits for a federation."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["provision_command"]


def provision_command(
    file: Annotated[Path, typer.Argument(metavar="FEDERATION.YAML", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the kits.")] = Path("kits"),
    rotate: Annotated[
        str | None,
        typer.Option(metavar="SITE", help="Give a site (or `coordinator`) a new key."),
    ] = None,
    revoke: Annotated[
        str | None, typer.Option(metavar="SITE", help="Take a site's key from those let in.")
    ] = None,
    stream_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Takes the streams of split learning; default: the YAML's stream_port, or 9095.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a startup kit for every site, and the coordinator's; what exists is not changed."""
    from rich.console import Console

    from fedrad.config import load_federation
    from fedrad.deployment.kits import provision as provisioning
    from fedrad.errors import ConfigError

    if rotate and revoke:
        raise ConfigError("--rotate and --revoke: one at a time")
    federation = load_federation(file)
    if stream_port is not None:
        federation = federation.with_stream_port(stream_port)
    if rotate:
        kits = provisioning.rotate_key(federation, out, rotate)
    elif revoke:
        kits = provisioning.revoke(federation, out, revoke)
    else:
        kits = provisioning.provision(federation, out)
    console = Console(highlight=False, soft_wrap=True)
    for made in kits.made:
        console.print(f"made {out / made}", markup=False)
    for note in kits.notes:
        console.print(note, markup=False)
    console.print(f"{len(kits.made)} files made, {len(kits.kept)} left as they were")

"""`fedrad site ...`: what a hospital's own people run."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    name="site",
    help="What a hospital's own people run; nothing but `start` sends anything from the data.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command(epilog="Example: [bold]fedrad site keygen --out keys --name nord[/bold]")
def keygen(
    out: Annotated[Path, typer.Option(help="Folder that node.key and node.pub go to.")] = Path(),
    name: Annotated[str, typer.Option(help="The site's name, a comment in node.pub.")] = "fedrad",
) -> None:
    """Make the site's key here, so that only its public half travels."""
    from fedrad.errors import RunError
    from fedrad.federation.keys import fingerprint, make_node_key, read_public_key

    private, public = out / "node.key", out / "node.pub"
    if private.exists():
        raise RunError(f"{private.name} exists already; a private key is never overwritten")
    make_node_key(private, public, comment=name)
    typer.echo(f"{private}  the private key, mode 0600: it must not leave this machine")
    typer.echo(f"{public}  to send to the organiser; key {fingerprint(read_public_key(public))}")

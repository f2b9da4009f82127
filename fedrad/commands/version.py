"""`fedrad --version`."""

from typing import Annotated

import typer

from fedrad import __version__

__all__ = ["version_option"]


def _tell(asked: bool) -> None:
    if asked:
        typer.echo(f"fedrad {__version__}")
        raise typer.Exit


def version_option(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the option that needs no command."""

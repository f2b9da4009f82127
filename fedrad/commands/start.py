"""`fedrad site start`: the hospital's process."""

import typer

from fedrad.commands.site import SiteArgument, app

__all__ = ["start"]


@app.command(epilog="Example: [bold]fedrad site start site.yaml[/bold]")
def start(site_file: SiteArgument) -> None:
    """Connect to the coordinator and work on what the site's policy allows, until stopped."""
    from fedrad.config import load_site_file
    from fedrad.federation.hospital.site import run_site

    name = load_site_file(site_file).name
    run_site(site_file, lambda sentence: typer.echo(f"{name}: {sentence}"))

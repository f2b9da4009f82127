"""`fedrad site start`: the hospital's process."""

import typer

from fedrad.commands.site import SiteArgument, app

__all__ = ["start_site"]


@app.command(name="start", epilog="Example: [bold]fedrad site start site.yaml[/bold]")
def start_site(site_file: SiteArgument) -> None:
    """Connect to the coordinator and work on what the site's policy allows, until stopped."""
    from fedrad.config import load_site_file
    from fedrad.deployment.site.supervisor import run_site

    name = load_site_file(site_file).name
    run_site(site_file, lambda sentence: typer.echo(f"{name}: {sentence}"))

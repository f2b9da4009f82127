"""`fedrad site ledger`: what a hospital's patients have spent, and what is left."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["LEDGER_EXAMPLE", "ledger"]

LEDGER_EXAMPLE = "Example: [bold]fedrad site ledger state --ceiling 8[/bold]"


def ledger(
    state_dir: Annotated[Path, typer.Argument(metavar="STATE_DIR", show_default=False)],
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no entry was changed, lost or cut off.")
    ] = False,
    ceiling: Annotated[
        float | None, typer.Option(help="Epsilon that a patient may spend; tells what is left.")
    ] = None,
    delta: Annotated[float, typer.Option(help="At which epsilon is told.")] = 1e-5,
) -> None:
    """Show the privacy that was spent here, by data set and experiment, or verify the record."""
    from rich.console import Console

    from fedrad.privacy.ledger import Ledger
    from fedrad.privacy.statement import ledger_rows, ledger_sentences

    book = Ledger(state_dir)
    entries = book.entries()
    if verify:
        typer.echo(f"{len(entries)} entries, each bound to the one before; none changed or missing")
        typer.echo(f"head {book.head}")
        return
    console = Console()
    if entries:
        console.print(_table(ledger_rows(entries, delta)))
    for sentence in ledger_sentences(entries, delta, ceiling):
        console.print(sentence, soft_wrap=True, highlight=False)


def _table(rows: "list[tuple[str, ...]]") -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = ("data", "experiment", "arm's digest", "unit", "uses", "steps", "epsilon", "account")
    table = Table(*shown, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(Text, row))
    return table

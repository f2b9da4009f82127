"""The block "what looks odd" of `fedrad check`."""

from collections.abc import Sequence

from rich.text import Text

from fedrad.data.oddities import Oddity

__all__ = ["odd_lines"]

_MOST = 12


def odd_lines(oddities: Sequence[Oddity]) -> Text:
    """Return each oddity with its site and what would mend it, or one line where there is none.

    >>> str(odd_lines([]))
    'What looks odd: nothing.'
    """
    if not oddities:
        return Text("What looks odd: nothing.")
    told = Text("What looks odd", style="bold")
    for oddity in oddities[:_MOST]:
        told.append(
            f"\n  {f'{oddity.site}: ' if oddity.site else ''}{oddity.found}", style="yellow"
        )
        told.append(f" [{oddity.rule}]\n    -> {oddity.mend}", style="not bold")
    if len(oddities) > _MOST:
        rules = sorted({oddity.rule for oddity in oddities[_MOST:]})
        told.append(f"\n  and {len(oddities) - _MOST} more ({', '.join(rules)})", style="not bold")
    return told

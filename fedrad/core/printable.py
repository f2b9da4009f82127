"""What others have written, made fit for a screen and a log: short, on one line, no commands."""

import unicodedata

__all__ = ["MAX_LENGTH", "printable"]

MAX_LENGTH = 2000
"""Characters of a reason that are kept."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of what is not seen: control, direction, surrogates, line ends."""


def printable(text: object, most: int = MAX_LENGTH) -> str:
    r"""Return a text from outside as it may be printed.

    A terminal takes some characters for commands, others hide or reverse what stands beside them.
    Each of these becomes a space, and what is longer is cut and says so.

    >>> printable("disk full\x1b[2J\nnord: \u202eall well")
    'disk full [2J nord: all well'
    >>> printable("x" * 5000, most=10)
    'xxxxxxxxxx... (5000 characters)'
    """
    told = str(text)
    # Cut before it is looked at: what came may be megabytes long.
    seen = "".join(
        " " if unicodedata.category(letter) in _UNSEEN else letter for letter in told[:most]
    )
    short = " ".join(seen.split())
    return short if len(told) <= most else f"{short}... ({len(told)} characters)"

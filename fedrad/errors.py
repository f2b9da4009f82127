"""Every error that fedrad raises on purpose, sorted by who can mend it.

```
FedradError
├── ConfigError            the researcher: something in the YAML or on the command line
├── DataError              the data's owner: something in a table, an image, a split
│   └── DataLeakageError   one patient or one image where it must not be
├── RunError               the researcher: the run's folder (another experiment's, a full disk)
├── MissingError           the machine's owner: a device or package that was asked for is not here
├── PrivacyError           the hospital: its ceiling is reached, or its ledger needs an operator
├── TrainingDivergedError  the researcher: a loss or weight stopped being a number
├── PolicyError            the site's owner: its policy does not allow what was asked
└── SiteFailedError        the coordinator: sites did not answer, or answered with an error
```
A message says where, what was found and what would fit. It never carries a patient's name or id.
Of what goes wrong at a hospital the coordinator reads `FedradError.outward` and nothing else: an
error's class, and of its message only what is made of fixed words, of numbers and of what the
coordinator itself had sent.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "ConfigError",
    "DataError",
    "DataLeakageError",
    "FedradError",
    "MissingError",
    "PolicyError",
    "PrivacyError",
    "RunError",
    "SiteFailedError",
    "TrainingDivergedError",
    "about_the_question",
    "outward_of",
]

_STAYS = "the site's own log says more"
_MOST = 500
"""Letters of a message that leave."""
_ROWS = 10
"""Rows that are named to the coordinator."""
_RULE = re.compile(r"[a-z0-9-]{1,40}")


class FedradError(Exception):
    """Base of all errors that fedrad raises on purpose."""

    @property
    def outward(self) -> str:
        """Return what may leave a hospital of the error's message: nothing, unless a class says."""
        return _STAYS


class ConfigError(FedradError):
    """The experiment, a site file or a command-line option does not fit its schema.

    Args:
        message: for who can mend it. What is wrong may be the coordinator's experiment or the
            hospital's own file; `about_the_question` tells them apart.
        stays: it quotes a file of this machine, and leaves in no case.
    """

    def __init__(self, message: str, *, stays: bool = False) -> None:
        super().__init__(message)
        self.stays, self.of_the_question = stays, False

    @property
    def outward(self) -> str:
        """Return the message if it is made of what the coordinator had sent."""
        return str(self)[:_MOST] if self.of_the_question and not self.stays else _STAYS


@contextmanager
def about_the_question() -> Iterator[None]:
    """Mark errors of configuration inside as made of what the coordinator had sent.

    Nothing of a hospital's own file or data may be read inside.

    >>> try:
    ...     with about_the_question():
    ...         raise ConfigError("arm 'fedagv' is not one of fedavg")
    ... except ConfigError as error:
    ...     outward_of(error)
    "ConfigError: arm 'fedagv' is not one of fedavg"
    """
    try:
        yield
    except ConfigError as error:
        error.of_the_question = True
        raise


def outward_of(error: Exception) -> str:
    """Return what the coordinator is told of an error at a hospital.

    >>> outward_of(ConfigError("data.csv: ['/films/Meier.csv'] is no text"))
    "ConfigError: the site's own log says more"
    >>> outward_of(FileNotFoundError("/films/Meier.png"))
    'FileNotFoundError'
    """
    kind = type(error).__name__
    return f"{kind}: {error.outward}" if isinstance(error, FedradError) else kind


class DataError(FedradError):
    """A table, an image or a split does not hold what the configuration says.

    Args:
        message: for the data's owner; may quote a cell or a path, so it stays at the site.
        rule: a short name of the rule that was broken, such as "label-unknown"; may leave.
        rows: of the source, from 1; may leave.
        column: its number in the source, from 1; may leave.
    """

    def __init__(
        self, message: str, *, rule: str = "", rows: tuple[int, ...] = (), column: int = 0
    ) -> None:
        super().__init__(message)
        self.rule, self.rows, self.column = rule, rows, column

    @property
    def outward(self) -> str:
        """Return rule, rows and column alone: a message may quote a cell.

        >>> DataError("row 7: 'Meier' is no label", rule="label-unknown", rows=(7,)).outward
        "label-unknown, row 7; the site's own log says more"
        """
        # A rule is a name of ours; what looks otherwise was made of something else.
        parts = [self.rule if _RULE.fullmatch(self.rule) else "the data do not fit"]
        if self.rows:
            told = ", ".join(str(int(row)) for row in self.rows[:_ROWS])
            more = f" and {len(self.rows) - _ROWS} more" if len(self.rows) > _ROWS else ""
            parts.append(f"row{'s' * (len(self.rows) > 1)} {told}{more}")
        if self.column:
            parts.append(f"column {int(self.column)}")
        return f"{', '.join(parts)}; {_STAYS}"


class DataLeakageError(DataError):
    """One patient or one image stands where it would make a comparison untrue."""


class RunError(FedradError):
    """The run's folder cannot be used or written."""


class MissingError(FedradError):
    """A device, package or file that was asked for is not on this machine."""


class PrivacyError(FedradError):
    """A hospital's ceiling of epsilon would be passed, or its ledger cannot be trusted."""

    @property
    def outward(self) -> str:
        """Return the message: it is made of fixed words, numbers and the experiment's name."""
        return str(self)[:_MOST]


class TrainingDivergedError(FedradError):
    """A loss or a weight is no finite number any more; this arm cannot go on."""

    @property
    def outward(self) -> str:
        """Return the message: it is made of fixed words and numbers."""
        return str(self)[:_MOST]


class PolicyError(FedradError):
    """A site's policy does not allow what was asked of it; says site, rule, limit and asked."""

    @property
    def outward(self) -> str:
        """Return the message: it is made of rules, their limits, and what was asked."""
        return str(self)[:_MOST]


class SiteFailedError(FedradError):
    """Too few sites answered a round, or one of them refused it."""

    @property
    def outward(self) -> str:
        """Return the message: it is made of fixed words and of what the coordinator had sent."""
        return str(self)[:_MOST]

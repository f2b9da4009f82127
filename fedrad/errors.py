"""Every error that fedrad raises on purpose, sorted by who can mend it.

```
FedradError
├── ConfigError        the researcher: something in the YAML or on the command line
├── DataError          the data's owner: something in a table, an image, a split
│   └── LeakError      one patient or one image where it must not be
├── RunError           the researcher: the run's folder (another experiment's, a full disk)
├── MissingError       the machine's owner: a device or package that was asked for is not here
├── PrivacyError       the hospital: its ceiling is reached, or its ledger needs an operator
├── TrainingDiverged   the researcher: a loss or weight stopped being a number
├── Refused            the site's owner: its policy does not allow what was asked
└── SiteFailed         the coordinator: sites did not answer, or answered with an error
```
A message says where, what was found and what would fit. It never carries a patient's name, id or
path, because it may travel from a hospital to the coordinator.
"""

__all__ = [
    "ConfigError",
    "DataError",
    "FedradError",
    "LeakError",
    "MissingError",
    "PrivacyError",
    "Refused",
    "RunError",
    "SiteFailed",
    "TrainingDiverged",
]


class FedradError(Exception):
    """Base of all errors that fedrad raises on purpose."""

    @property
    def outward(self) -> str:
        """Return what may leave a hospital of the error's message."""
        return str(self)


class ConfigError(FedradError):
    """The experiment, a site file or a command-line option does not fit its schema."""


class DataError(FedradError):
    """A table, an image or a split does not hold what the configuration says.

    Args:
        message: for the data's owner; may quote a cell or a path, so it stays at the site.
        rule: a short name of the rule that was broken, such as "label-unknown"; may leave.
        rows: of the source, from 1; may leave.
    """

    def __init__(self, message: str, *, rule: str = "", rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rule, self.rows = rule, rows

    @property
    def outward(self) -> str:
        """Return the rule and the rows alone: a message may quote a cell."""
        parts = [self.rule or "the data do not fit"]
        if self.rows:
            parts.append(f"rows {', '.join(map(str, self.rows))}")
        return f"{', '.join(parts)}; the site's own log says more"


class LeakError(DataError):
    """One patient or one image stands where it would make a comparison untrue."""


class RunError(FedradError):
    """The run's folder cannot be used or written."""


class MissingError(FedradError):
    """A device, package or file that was asked for is not on this machine."""


class PrivacyError(FedradError):
    """A hospital's ceiling of epsilon would be passed, or its ledger cannot be trusted."""


class TrainingDiverged(FedradError):
    """A loss or a weight is no finite number any more; this arm cannot go on."""


class Refused(FedradError):
    """A site's policy does not allow what was asked of it; says site, rule, limit and asked."""


class SiteFailed(FedradError):
    """Too few sites answered a round, or one of them refused it."""

"""Coordinator and sites say which fedrad they run; different ones do not work together.

A minor version may train differently from the same text, so a round over two of them would be
nobody's algorithm; another schema means that the text itself cannot be read.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fedrad.config import Experiment
from fedrad.errors import ConfigError

__all__ = ["check_version", "version_info"]

_SCHEMA = int(Experiment.model_fields["schema_version"].default)


def version_info() -> dict[str, str | int]:
    """Return what goes with every message over a network.

    >>> sorted(version_info())
    ['fedrad', 'schema']
    """
    return {"fedrad": version("fedrad"), "schema": _SCHEMA}


def check_version(config: Mapping[str, Any]) -> None:
    """Refuse a message of another minor version of fedrad or another schema of experiments.

    Args:
        config: of the message.

    Raises:
        ConfigError: names both versions.

    >>> check_version(version_info())
    >>> check_version(version_info() | {"fedrad": "9.4.1"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    fedrad.errors.ConfigError: the coordinator runs fedrad 9.4.1, this site ...
    """
    theirs, ours = str(config.get("fedrad", "(unnamed)")), version("fedrad")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise ConfigError(
            f"the coordinator runs fedrad {theirs}, this site {ours}; "
            "both need the same major and minor version"
        )
    schema = config.get("schema")
    if schema != _SCHEMA:
        raise ConfigError(
            f"the experiment is written in schema {schema}, this site reads schema {_SCHEMA} "
            f"(fedrad {theirs} there, {ours} here)"
        )

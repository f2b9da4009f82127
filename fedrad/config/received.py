"""An experiment's text as it came over a network: looked at before it is read."""

import yaml

from fedrad.config.experiment import Experiment
from fedrad.config.reading import from_text
from fedrad.errors import ConfigError

__all__ = ["LONGEST_TEXT", "received"]

LONGEST_TEXT = 1 << 17
"""Letters of an experiment's text; one of ten arms has about two thousand."""
_DEEPEST = 32
_OPENS = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def received(text: str) -> Experiment:
    r"""Return the experiment of a text that came over a network.

    Raises:
        ConfigError: it is too long or too deep, or says that a part is to be repeated (a YAML
            alias): a few lines of that can stand for more than any memory holds. Canonical texts
            have none.

    >>> received("a: &a [1]\nb: [*a, *a]")
    Traceback (most recent call last):
    fedrad.errors.ConfigError: experiment: holds a YAML alias, which no canonical text does
    """
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"experiment: has {len(text)} letters; {LONGEST_TEXT} are the most")
    try:
        _look(text)
    except yaml.YAMLError:
        raise ConfigError("experiment: is no YAML") from None
    return from_text(text)


def _look(text: str) -> None:
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken):
            raise ConfigError("experiment: holds a YAML alias, which no canonical text does")
        depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
        if depth > _DEEPEST:
            raise ConfigError(f"experiment: is nested more than {_DEEPEST} times")

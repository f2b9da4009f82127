"""YAML out: plain values as text, and one more approved experiment in a site's own file."""

from collections.abc import Mapping
from typing import Any

import yaml

from fedrad.errors import ConfigError

__all__ = ["as_yaml", "with_approved"]


def as_yaml(values: Mapping[str, Any]) -> str:
    r"""Return plain values as YAML, in their order.

    >>> as_yaml({"data": {"name": "phantom", "hospitals": 2}})
    'data:\n  name: phantom\n  hospitals: 2\n'
    """
    return yaml.safe_dump(dict(values), sort_keys=False, width=100, allow_unicode=True)


def with_approved(text: str, digest: str, note: str) -> str:
    r"""Return a site file's text with one more digest under `experiments`; all else stays.

    Args:
        text: of a site file that fits its schema; its comments and order are kept.
        digest: of the experiment.
        note: stands beside it as a comment, in one line.

    Raises:
        ConfigError: the file allows any experiment already.

    >>> print(with_approved("name: nord\nmin_patients: 5\n", "ab12", "quickstart"))
    name: nord
    min_patients: 5
    experiments:
      - ab12  # quickstart
    """
    node = _value(text, "experiments")
    line = f"  - {digest}  # {note}"
    if node is None:
        return f"{text.rstrip()}\nexperiments:\n{line}\n"
    if isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"experiments: is '{node.value}' already; nothing needs approval")
    items = [item.value for item in node.value]
    if digest in items:
        return text
    if node.flow_style or not items:
        rest = [f"  - {item}" for item in items]
        block = "\n".join(["", *rest, line])
        return text[: node.start_mark.index].rstrip(" ") + block + text[node.end_mark.index :]
    # After the last item's line: a comment beside it stays beside it.
    last = node.value[-1]
    end = text.find("\n", last.end_mark.index)
    end = len(text) if end < 0 else end
    indent = " " * (last.start_mark.column - 2)
    return f"{text[:end]}\n{indent}{line.strip()}{text[end:]}"


def _value(text: str, key: str) -> Any:
    """Return the YAML node of a key at the top of a text, or None."""
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = top.value if isinstance(top, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)

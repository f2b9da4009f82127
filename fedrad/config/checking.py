"""Raw values in, checked values out, with errors that say where, what was found and what fits."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from fedrad.errors import ConfigError
from fedrad.registry import fits, nearest, shown

__all__ = ["checked", "merge_changes"]

M = TypeVar("M", bound=BaseModel)


def merge_changes(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with a change laid over it; inner mappings are merged, unless named.

    A mapping with a name is a whole thing: its options do not mix with another's.

    >>> merge_changes({"local": {"batch": 8, "epochs": 1}}, {"local": {"batch": 16}})
    {'local': {'batch': 16, 'epochs': 1}}
    >>> merge_changes({"model": {"name": "cnn", "width": 8}}, {"model": {"name": "mlp"}})
    {'model': {'name': 'mlp'}}
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and "name" not in value:
            merged[key] = merge_changes(old, value)
        else:
            merged[key] = value
    return merged


def checked(kind: type[M], raw: Mapping[str, Any], *, where: str) -> M:
    """Return raw values as a checked, frozen whole.

    Raises:
        ConfigError: a key is unknown or missing, or a value does not fit; with its place.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_first(error, kind, where)) from None


def _first(error: ValidationError, kind: type[BaseModel], where: str) -> str:
    # A key that is unknown says more than the key that is missing in its place.
    problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    # "[key]" is pydantic's word for a key that does not fit, which the place names anyway.
    place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    prefix = f"{where}: {place}: " if place else f"{where}: "
    if problem["type"] == "extra_forbidden":
        fields = _fields(kind, problem["loc"][:-1])
        key = str(problem["loc"][-1])
        return f"{prefix}unknown key; known are {', '.join(fields)}{nearest(key, fields)}"
    if problem["type"] == "missing":
        return f"{prefix}is missing"
    found = "" if problem["type"] == "value_error" else f", found {shown(problem['input'])}"
    return f"{prefix}{_fits(problem)}{found}{_quotes(problem)}"


_NAME = "needs letters, digits, '.', '_' and '-', the first a letter or digit"
_WORDS = {
    "[key]": _NAME,
    "name": _NAME,
    "device": "needs cpu, cuda or cuda:1",
    "host": "needs a host's name or an IP address, such as fl.example.org or 10.0.0.5",
}
"""Last part of a place -> its pattern in words."""


def _fits(problem: Mapping[str, Any]) -> str:
    words = _WORDS.get(str(problem["loc"][-1])) if problem["loc"] else None
    return words if words and problem["type"] == "string_pattern_mismatch" else fits(problem)


def _quotes(problem: Mapping[str, Any]) -> str:
    """Return that a name needs quotes, where YAML has made something else of it."""
    value = problem["input"]
    if problem["type"] != "string_type" or not (
        value is None or isinstance(value, bool | int | float | date)
    ):
        return ""
    return (
        "; put names (of sites, labels) in quotes: YAML takes yes, no, 12, 1.5 and 2024-01-02 for "
        "other things than texts"
    )


def _fields(kind: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Return the keys that are known at a place."""
    for part in loc:
        field = kind.model_fields.get(str(part))
        if field is None:
            break
        notes = (field.annotation, *get_args(field.annotation))
        inner = next((n for n in notes if isinstance(n, type) and issubclass(n, BaseModel)), None)
        if inner is None:
            break
        kind = inner
    return list(kind.model_fields)

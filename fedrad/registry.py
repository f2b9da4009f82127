"""Builds a thing by name from a table; the builder's own signature is its schema.

A table is a plain dict from name to builder. A builder's keyword-only parameters are what the YAML
may say (`{name: fedprox, mu: 0.01}` calls `fedprox(mu=0.01)`), checked with pydantic against their
annotations; its positional parameters are what the caller gives.
"""

import difflib
import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from fedrad.errors import ConfigError

__all__ = ["build", "check_options", "fits", "nearest", "options_of", "shown", "shown_names"]

NamedSpec = str | Mapping[str, Any]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 3


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the choice most like the word, or "" when none is.

    >>> nearest("fedporx", ["fedavg", "fedprox"])
    " (did you mean 'fedprox'?)"
    """
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{found[0]}'?)" if found else ""


def shown_names(names: Iterable[str], most: int = 20) -> str:
    """Return names with commas, of many the first and how many more there are.

    >>> shown_names(["nord", "ost", "west"], most=2)
    'nord, ost and 1 more'
    """
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def shown(value: object) -> str:
    """Return a value as a message shows it: a long or deep one in short.

    >>> shown("fast"), len(shown("a" * 10_000)) < 100
    ("'fast'", True)
    """
    return _SHORT.repr(value)


def options_of(builder: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the options of a builder: its keyword-only parameters, in order.

    >>> def fedprox(*, mu: float) -> None: ...
    >>> list(options_of(fedprox))
    ['mu']
    """
    parameters = inspect.signature(builder, eval_str=True).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def check_options(
    builder: Callable[..., Any], given: Mapping[str, Any], *, where: str, name: str
) -> dict[str, Any]:
    """Return the options as the builder's annotations want them.

    Args:
        builder: its keyword-only parameters are the schema.
        given: the options found in the YAML.
        where: their place, for messages ("arms.fedprox.algorithm").
        name: the builder's name in its table, for messages.

    Raises:
        ConfigError: an option is unknown, missing, or not of its type.

    >>> def fedprox(*, mu: float) -> None: ...
    >>> check_options(fedprox, {"mu": "0.01"}, where="algorithm", name="fedprox")
    {'mu': 0.01}
    """
    options = options_of(builder)
    # Without the limits in Annotated[float, ...]: they are told when they are broken.
    hints = get_type_hints(builder)
    takes = ", ".join(f"{key}: {_type_name(hints[key])}" for key in options) or "no options"
    for key in given:
        if key not in options:
            hint = nearest(key, options)
            raise ConfigError(f"{where}.{key}: {name} takes {takes}{hint}")
    try:
        checked = _schema(builder)(**given)
    except ValidationError as error:
        raise ConfigError(_first(error, where, f"{name} takes {takes}")) from None
    return {key: getattr(checked, key) for key in options}


def build(table: Mapping[str, Callable[..., Any]], spec: NamedSpec, *given: Any, where: str) -> Any:
    """Return what the named builder of a table makes of a spec.

    Args:
        table: name -> builder.
        spec: a name, or a mapping with `name` and options.
        given: the builder's positional arguments.
        where: place of the spec in the YAML, for messages.

    Raises:
        ConfigError: the name is not in the table, or the options do not fit.

    >>> def power(base: int, *, by: int = 2) -> int: return base**by
    >>> build({"power": power}, {"name": "power", "by": 3}, 2, where="model")
    8
    """
    name, options = split(spec, where=where)
    if name not in table:
        known = ", ".join(sorted(table))
        raise ConfigError(f"{where}: '{name}' is not one of {known}{nearest(name, table)}")
    return table[name](*given, **check_options(table[name], options, where=where, name=name))


def split(spec: NamedSpec, *, where: str) -> tuple[str, dict[str, Any]]:
    """Return a spec's name and its options.

    >>> split({"name": "fedprox", "mu": 0.01}, where="algorithm")
    ('fedprox', {'mu': 0.01})
    """
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(f"{where}: found {shown(spec)}; needs a name, or a mapping with 'name'")
    return spec["name"], {str(k): v for k, v in spec.items() if k != "name"}


@lru_cache(maxsize=256)
def _schema(builder: Callable[..., Any]) -> type[BaseModel]:
    """Return a builder's options as a pydantic model; made once, it takes a millisecond."""
    fields: dict[str, Any] = {
        key: (p.annotation, ... if p.default is p.empty else p.default)
        for key, p in options_of(builder).items()
    }
    config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False)
    return create_model(builder.__name__, __config__=config, **fields)


def fits(problem: Mapping[str, Any]) -> str:
    """Return what would fit where pydantic found a problem, in the words of a YAML file.

    >>> fits({"type": "tuple_type", "input": 0, "msg": "Input should be a valid tuple"})
    'needs a list, such as [0]'
    """
    value, message = problem["input"], str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in ("tuple_type", "list_type"):
        one = value if isinstance(value, str | int) else "a, b"
        return f"needs a list, such as [{str(one)[:40]}]"
    if problem["type"] in ("dict_type", "model_type", "mapping_type", "dataclass_type"):
        return "needs keys and values, such as {key: value}"
    if problem["type"] == "string_type":
        return "needs a text"
    if problem["type"].startswith("int_"):
        return "needs a whole number"
    message = message.replace("Input should be", "must be")
    return f"{message[0].lower()}{message[1:]}"


def _type_name(note: object) -> str:
    return note.__name__ if type(note) is type else str(note).replace("typing.", "")


def _first(error: ValidationError, where: str, takes: str) -> str:
    # Of a choice of types, the one that got furthest is the one that was meant.
    problem = max(error.errors(), key=lambda one: len(one["loc"]))
    place = ".".join([where, *map(str, problem["loc"])])
    found = "" if problem["type"] == "missing" else f", found {shown(problem['input'])}"
    return f"{place}: {fits(problem)}{found}; {takes}"

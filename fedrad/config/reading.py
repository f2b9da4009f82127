"""YAML files and texts, read; keys twice are an error, and no tag makes an object."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fedrad.config.checking import checked, merge_changes
from fedrad.config.experiment import POOLED, Experiment
from fedrad.config.federation import FederationFile
from fedrad.config.site import Site, SiteFile
from fedrad.errors import ConfigError

__all__ = ["from_text", "load_experiment", "load_federation", "load_site", "load_site_file"]

_MOST_VALUES = 100_000
_DEEPEST = 30


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment's YAML.

    Args:
        path: the file; `name` defaults to its stem, and `sites` are relative to its folder.
        overrides: `key.path=value` texts, the value in YAML, that replace what the file says.

    Raises:
        ConfigError: the file is missing, is no YAML, or does not fit the schema.
    """
    raw = {"name": path.stem} | _read(path)
    for override in overrides:
        raw = _set(raw, override)
    if isinstance(raw.get("sites"), list):
        raw["sites"] = [str(path.parent / str(site)) for site in raw["sites"]]
    return checked(Experiment, raw, where=path.name)


def load_site(path: Path) -> Site:
    """Read a hospital's own YAML, as a simulation does; a deployed site's file will do too.

    Raises:
        ConfigError: the file is missing, is no YAML, or does not fit the schema.
    """
    raw = _read(path)
    if "coordinator" in raw:
        return _site_file(raw, path)
    site = checked(Site, raw, where=path.name)
    _check_name(site, path)
    return site


def load_site_file(path: Path) -> SiteFile:
    """Read a deployed hospital's `site.yaml`; its paths become absolute, from the file's folder.

    Raises:
        ConfigError: the file is missing, is no YAML, or does not fit the schema.
    """
    return _site_file(_read(path), path)


def load_federation(path: Path) -> FederationFile:
    """Read a federation's YAML; its paths become absolute, from the file's folder.

    Raises:
        ConfigError: the file is missing, is no YAML, or does not fit the schema.
    """
    federation = checked(FederationFile, _read(path), where=path.name)
    return federation.under(path.resolve().parent)


def _site_file(raw: dict[str, Any], path: Path) -> SiteFile:
    site = checked(SiteFile, raw, where=path.name)
    _check_name(site, path)
    return site.under(path.resolve().parent)


def _check_name(site: Site, path: Path) -> None:
    if site.name == POOLED:
        raise ConfigError(
            f"{path.name}: no site may be named '{POOLED}'; it means all sites together"
        )


def from_text(text: str) -> Experiment:
    """Read an experiment from its text, as a site does."""
    raw = _mapping(_parse(text, "experiment"), "experiment")
    return checked(Experiment, raw, where="experiment")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may not stand twice in one mapping (PyYAML keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        # By their texts: a key may be a list, which no set can hold and YAML's own check refuses.
        counts = Counter(map(str, keys))
        twice = next((key for key, number in counts.items() if number > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{twice}' stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number; one of another base than ten was meant as a name, or is a slip."""
        value: int = super().construct_yaml_int(node)
        if node.value.replace("_", "").lstrip("+") != str(value):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"YAML reads {node.value} as the number {value}; put names (of sites, labels) in "
                f"quotes, or write {value} if the number is meant",
                node.start_mark,
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path.name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path.name}: cannot be read (it is no UTF-8 text, line {line}); save it as UTF-8"
        ) from None
    return _mapping(_parse(text, path.name), path.name)


def _parse(text: str, where: str) -> Any:
    """Return plain values; never a folder's name in an error, since messages travel."""
    try:
        # A SafeLoader: only plain values come out.
        raw = yaml.load(text, Loader=_Loader)
        _check_size(raw, where)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: {getattr(error, 'problem', None) or 'no YAML'}") from None
    except RecursionError:
        raise ConfigError(f"{where}: values are nested too deeply") from None
    except ValueError:
        # Such as the date 2024-99-99, or an integer of thousands of digits.
        raise ConfigError(f"{where}: no YAML; a number or a date in it cannot be read") from None
    return raw


def _check_size(raw: Any, where: str) -> None:
    """Refuse a text that is larger or deeper than anyone would write, also by its own references.

    Ten lines in which each refers twice to the one before are a thousand values.
    """
    known: dict[int, tuple[int, int]] = {}

    def measured(value: Any) -> tuple[int, int]:
        if not isinstance(value, dict | list):
            return 1, 0
        if id(value) not in known:
            inner = [measured(v) for v in (value.values() if isinstance(value, dict) else value)]
            known[id(value)] = (
                1 + sum(count for count, _ in inner),
                1 + max((depth for _, depth in inner), default=0),
            )
        return known[id(value)]

    count, depth = measured(raw)
    if count > _MOST_VALUES:
        raise ConfigError(f"{where}: holds more than {_MOST_VALUES:,} values")
    if depth > _DEEPEST:
        raise ConfigError(f"{where}: values are nested too deeply")


def _mapping(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: needs a mapping of keys to values, found {type(raw).__name__}")
    for key in raw:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: {key}: a key is a text; put it in quotes")
    return raw


def _set(raw: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {override}: needs key=value, such as rounds=5 or local.batch=16")
    change = _parse(value, f"--set {key}")
    for part in reversed(key.split(".")):
        change = {part: change}
    return merge_changes(raw, change)

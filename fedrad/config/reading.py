"""YAML files and texts, read; keys twice are an error, and no tag makes an object."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fedrad.config.checking import checked, merge
from fedrad.config.experiment import POOLED, Experiment, Site
from fedrad.config.federation import FederationFile
from fedrad.config.site import SiteFile
from fedrad.errors import ConfigError

__all__ = ["from_text", "load_experiment", "load_federation", "load_site", "load_site_file"]


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
    return checked(Experiment, _parse(text, "experiment"), where="experiment")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may not stand twice in one mapping (PyYAML keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{twice}' stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason})") from None
    return _parse(text, str(path))


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        # A SafeLoader: only plain values come out.
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: {getattr(error, 'problem', None) or 'no YAML'}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: needs a mapping of keys to values, found {type(raw).__name__}")
    return raw


def _set(raw: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: needs key=value, such as rounds=5 or local.batch=16")
    change: Any = yaml.safe_load(value)
    for part in reversed(key.split(".")):
        change = {part: change}
    return merge(raw, change)

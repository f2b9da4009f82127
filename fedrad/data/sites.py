"""From an experiment to the data of its sites, through every check; nothing else reads data."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedrad.config import POOLED, Experiment, Site, SiteFile, Task, load_site
from fedrad.config.names import name_problem
from fedrad.data import ADAPTERS, PARTITIONERS
from fedrad.data.base import (
    Records,
    SiteData,
    at_site,
    hashes,
    pooled_site,
    row_numbers,
    sites_of,
)
from fedrad.data.cache import kept_in
from fedrad.data.checks.likely_overlap import likely_leaks
from fedrad.data.checks.odd_images import looks_odd
from fedrad.data.checks.oddities import Oddity, check_rules, unaccepted
from fedrad.data.checks.overlap import check_overlap
from fedrad.data.sources import image_of, joined_rows
from fedrad.data.splits import assign_splits
from fedrad.errors import ConfigError, DataError
from fedrad.registry import build, nearest, shown_names, split

__all__ = ["Federation", "check_site_numbers", "federation_of", "hospital_of", "records_of"]


@dataclass(frozen=True)
class Federation:
    """The sites of a simulation, all in one process.

    Args:
        sites: name -> data, sorted by name, held-out sites among them.
        held_out: the sites that never train.
        counted: the sites are hospitals that told how many images and labels they have; nothing
            else is known of their data, and `x` holds none.
        oddities: what looks odd in the data, without what the experiment or a site accepts.
    """

    sites: Mapping[str, SiteData]
    held_out: tuple[str, ...]
    counted: bool = False
    oddities: tuple[Oddity, ...] = ()

    @property
    def training(self) -> tuple[str, ...]:
        """Return the names of the sites that train, sorted."""
        return tuple(name for name in self.sites if name not in self.held_out)

    def pool(self) -> SiteData:
        """Return the data of all training sites as those of one; one site alone is its own pool."""
        parts = [self.sites[name] for name in self.training]
        return parts[0] if len(parts) == 1 else pooled_site(parts, POOLED)


def federation_of(experiment: Experiment, root: Path) -> Federation:
    """Return the experiment's sites, after all checks of their data.

    Args:
        experiment: its `data` or `sites`, partition, split and held-out sites.
        root: the folder that relative paths of data are under.

    Raises:
        ConfigError: an option does not fit, or a held-out site is none of the sites.
        DataError: the data do not hold what the experiment says, or leak between splits or sites.
    """
    if not (experiment.data or experiment.sites):
        raise ConfigError(
            "the experiment names neither data nor sites: it is for hospitals that read their own "
            "(fedrad run FILE --on KIT); to simulate it, add data, or sites"
        )
    check_rules(experiment.accept, where="accept")
    accept: dict[str, tuple[str, ...]] = {}
    if experiment.sites:
        files = _site_files(experiment, root)
        accept = {name: (*experiment.accept, *site.accept) for name, (site, _) in files.items()}
        sources = [records for _, records in files.values()]
    else:
        sources = [_source(experiment, root)]
    for records in sources:
        _check_names(records)
    sources = [_with_splits(records, experiment) for records in sources]
    joined = joined_rows(sources)
    check_overlap(joined, shared_patients=experiment.shared_patients)
    odd = [oddity for records in sources for oddity in records.oddities]
    odd += likely_leaks(joined, image_of(sources))
    found = [sites_of(records) for records in sources]
    sites = {
        name: one[name]
        for name in sorted({n for o in found for n in o})
        for one in found
        if name in one
    }
    federation = Federation(sites, tuple(sorted(experiment.held_out_sites)))
    _check_sites(federation)
    check_site_numbers(experiment, federation.training)
    odd += looks_odd(sites, experiment.task)
    untold = [one for one in odd if unaccepted([one], accept.get(one.site, experiment.accept))]
    return replace(federation, oddities=tuple(untold))


def check_site_numbers(experiment: Experiment, training: Sequence[str]) -> None:
    """Refuse to begin what the number of training sites cannot satisfy in any round.

    Raises:
        ConfigError: the quorum, or the sites of a round, are more than all of them.
    """
    for key, asked in (
        ("quorum", experiment.quorum),
        ("sites_per_round", experiment.sites_per_round),
    ):
        if asked and asked > len(training):
            raise ConfigError(
                f"{key}: found {asked}, but {len(training)} sites train: {shown_names(training)}"
            )


def hospital_of(experiment: Experiment, site: Site) -> Federation:
    """Return a hospital's own data as a federation of one, after all checks of them.

    Args:
        experiment: its task and split; its own `data`, `sites` and `partition` are for simulations.
        site: the hospital's file.

    Raises:
        ConfigError: the site file names no folder of data where its adapter reads one.
        DataError: the data do not hold what the experiment says, or leak between splits.
    """
    read = records_of(experiment.task, site, shared_patients=experiment.shared_patients)
    records = _with_splits(read, experiment)
    check_overlap(records)
    held_out = tuple(name for name in experiment.held_out_sites if name == site.name)
    sites = sites_of(records)
    odd = [*records.oddities, *likely_leaks(records), *looks_odd(sites, experiment.task)]
    return Federation(sites, held_out, oddities=unaccepted(odd, site.accept))


def records_of(task: Task, site: Site, *, shared_patients: bool = False) -> Records:
    """Return a hospital's own data as its adapter reads them, before a split is drawn.

    Raises:
        ConfigError: the site file names no folder of data where its adapter reads one.
        DataError: the data do not hold what the task says.
    """
    # A hospital's process may write to its own state_dir and nowhere else.
    with kept_in(site.state_dir / "cache" if isinstance(site, SiteFile) else None):
        return _records(task, site, _data_root(site), shared_patients=shared_patients)


def _data_root(site: Site) -> Path:
    """Return the folder of a hospital's data; its path is not told, since messages travel."""
    name, _ = split(site.data, where="data")
    root = inspect.signature(ADAPTERS[name]).parameters["root"] if name in ADAPTERS else None
    if site.data_root is None:
        if root is not None and root.default is root.empty:
            raise ConfigError(
                f"{site.name}: data_root: is missing; adapter {name} reads files under it"
            )
        return Path()
    if not Path(site.data_root).is_dir():
        raise ConfigError(f"{site.name}: data_root: is no folder on this machine")
    return Path(site.data_root)


def _source(experiment: Experiment, root: Path) -> Records:
    records = _adapt(experiment.task, experiment.data or "", root, where="data")
    if experiment.partition:
        records = build(
            PARTITIONERS, experiment.partition, records, experiment.task, where="partition"
        )
    if records.site is None:
        known = ", ".join(sorted(PARTITIONERS))
        raise ConfigError(f"partition: the data name no sites; choose one of {known}")
    return records


def _site_files(experiment: Experiment, root: Path) -> dict[str, tuple[Site, Records]]:
    sources: dict[str, tuple[Site, Records]] = {}
    for path in experiment.sites:
        site = load_site(Path(path))
        if site.name in sources:
            raise ConfigError(f"sites: two site files are named '{site.name}'")
        place = Path(site.data_root) if site.data_root else root
        records = _records(experiment.task, site, place, shared_patients=experiment.shared_patients)
        sources[site.name] = site, records
    return sources


def _records(task: Task, site: Site, root: Path, *, shared_patients: bool) -> Records:
    check_rules(site.accept, where=f"{site.name}: accept")
    records = _adapt(task, site.data, root, where=f"{site.name}: data")
    if not shared_patients:
        # "17" in the files of two hospitals is two people.
        own, alike = (
            None if ids is None else hashes(f"{site.name}\x1f{one}" for one in ids)
            for ids in (records.patient, records.alike)
        )
        assert own is not None
        records = replace(records, patient=own, alike=alike)
    return at_site(records, site.name)


def _adapt(task: Task, spec: Any, root: Path, *, where: str) -> Records:
    records: Records = build(ADAPTERS, spec, task, root, where=where)
    found = tuple(records.x.shape[1:])
    if found != task.input:
        raise DataError(f"{where}: rows have the shape {found}, task.input is {task.input}")
    return records


def _with_splits(records: Records, experiment: Experiment) -> Records:
    if experiment.split is None:
        if records.split is None:
            raise ConfigError(
                "split: the data come without a split; say split: {val: 0.15, test: 0.25}"
            )
        return records
    asked = experiment.split
    return assign_splits(records, val=asked.val, test=asked.test, seed=asked.seed)


def _check_names(records: Records) -> None:
    """Refuse a site's name that is no folder's name, by its row: it may be a path or a person's."""
    assert records.site is not None
    for name in np.unique(records.site):
        problem = name_problem(str(name))
        if problem:
            row = row_numbers(records)[np.argmax(records.site == name)]
            told = f"row {row}: a site cannot have the name that stands here: {problem}"
            raise DataError(told, rule="site-name", rows=(int(row),))


def _check_sites(federation: Federation) -> None:
    for name in federation.held_out:
        if name not in federation.sites:
            hint = nearest(name, federation.sites)
            raise ConfigError(
                f"held_out_sites: '{name}' is not one of {shown_names(federation.sites)}{hint}"
            )
    if not any(federation.sites[name].images("train") for name in federation.training):
        raise DataError("no site has an image with a label to train on")
    if POOLED in federation.sites:
        raise DataError(f"no site may be named '{POOLED}'; it means all sites together")

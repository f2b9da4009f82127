"""The whole examination of a site, from its file to its data."""

from collections.abc import Iterator
from pathlib import Path

from fedrad.config import Experiment, SiteFile, load_site_file
from fedrad.deployment.preflight.check_result import CheckResult, amber, green, red
from fedrad.deployment.preflight.data import check_data
from fedrad.deployment.preflight.machine import check_keys, check_machine, check_state
from fedrad.deployment.preflight.network import check_network
from fedrad.deployment.site.policy import check_names
from fedrad.errors import ConfigError

__all__ = ["run_checks"]


def run_checks(path: Path, experiment: Experiment | None = None) -> Iterator[CheckResult]:
    """Yield what is found at a site, as it is found.

    Args:
        path: of the site's file.
        experiment: for whose task the data are read, instead of the site file's own.
    """
    try:
        site = load_site_file(path)
    except ConfigError as error:
        yield red("site file", str(error), "the site's own people: mend it and call again")
        return
    yield green("site file", f"{site.name}, coordinator at {site.coordinator.host}")
    yield from check_keys(site)
    yield from check_network(site)
    yield from check_state(site)
    yield from check_machine(site)
    yield from _policy(site)
    yield from check_data(site, experiment.task if experiment else site.task)


def _policy(site: SiteFile) -> Iterator[CheckResult]:
    try:
        check_names(site)
    except ConfigError as error:
        yield red("policy", str(error), "the site's own people: mend the name")
        return
    cut = [name for name in site.allow.algorithms if name in ("splitfed", "splitnn")]
    if cut and site.coordinator.stream_port is None:
        yield amber(
            "streams",
            f"{', '.join(cut)} is allowed, but coordinator names no stream_port: it is refused",
            "the organiser knows the port; or take it out of allow.algorithms",
        )
    closed = [name for name, names in site.allow if not names]
    if not site.experiments:
        closed.append("experiments")
    if closed:
        cure = "add what may run; fedrad site approve FILE adds an experiment"
        yield amber("policy", f"nothing will run: {', '.join(closed)} names nothing", cure)
        return
    approved = (
        "any experiment" if site.experiments == "any" else f"{len(site.experiments)} approved"
    )
    told = (
        f"{approved}; {', '.join(site.allow.algorithms)}; at least {site.min_patients} patients; "
        f"{site.max_upload_mb:g} MB a round; norm {site.max_norm or 'without limit'}; "
        f"epsilon {site.epsilon or 'without limit'}"
    )
    yield green("policy", told)

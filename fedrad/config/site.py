"""What a hospital writes about itself: whom it talks to, where its data lie, and what may leave.

Closed by default: what is not named is not allowed. The file never leaves the hospital.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from fedrad.config.experiment import Frozen, Spec, Task
from fedrad.config.names import RuleName, SiteName

__all__ = ["Allow", "Certificates", "Coordinator", "Site", "SiteFile"]

_DIGEST = 64
"""Hexadecimal digits of a SHA-256."""


def _host(name: object) -> object:
    """Return an address as it is written in certificates; a name as it is.

    >>> _host("[0:0:0:0:0:0:0:1]"), _host("fl.example.org")
    ('::1', 'fl.example.org')
    """
    bare = name[1:-1] if isinstance(name, str) and name[:1] + name[-1:] == "[]" else name
    try:
        return str(ip_address(str(bare)))
    except ValueError:
        return name


_HOST = r"^([A-Za-z0-9][A-Za-z0-9.-]*|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$"
HostName = Annotated[str, BeforeValidator(_host), Field(pattern=_HOST, max_length=253)]
Port = Annotated[int, Field(gt=0, lt=65536)]


class Site(Frozen):
    """One hospital's own file: its name and where its data lie. It never leaves the hospital.

    Args:
        name: the site's.
        data: the adapter that reads them, with its options.
        data_root: the folder that their relative paths are under.
        accept: rules of what looks odd in the data that the site has looked at; not told again.
    """

    name: SiteName
    data: Spec
    data_root: str | None = None
    accept: tuple[RuleName, ...] = ()


class Coordinator(Frozen):
    """The only machine that a site connects to; the site opens nothing itself.

    Args:
        host: its name or address.
        port: for messages.
        stream_port: for the streams of split learning; without it the site opens none.
    """

    host: HostName
    port: Port
    stream_port: Port | None = None


class Certificates(Frozen):
    """The site's part of the federation's keys; relative paths are from the site file's folder."""

    ca: Path = Path("ca.crt")
    private_key: Path = Path("node.key")
    public_key: Path = Path("node.pub")


class Allow(Frozen):
    """Names of what may be run here: algorithms and wrappers, models, and a site's actions."""

    algorithms: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


class SiteFile(Site):
    """A hospital's `site.yaml`.

    Args:
        name, data, data_root, accept: as in a simulation's site file; a relative root is from the
            file's folder.
        coordinator: where the federation's coordinator listens.
        certificates: of the site's startup kit.
        task: what the site's labels are; an experiment with other labels is refused.
        state_dir: the site's own disk: memory, privacy spend, audit log.
        device: cpu, cuda or cuda:1; one that is not there is an error.
        allow: see `Allow`; nothing unless named.
        experiments: "any", or the digests of those that were approved; none unless named.
        min_patients: a split with fewer patients answers nothing, and no update leaves that may be
            made of fewer.
        min_sites: a mean of fewer sites gets no update from here: the mean of one is its own.
        min_cell: least patients in any cell that leaves: cells of scores are merged until they hold
            so many, a table of counts with a smaller one is kept back.
        max_upload_mb: 10^6 bytes that may leave in one round of an arm and seed, repeats included.
        max_norm: largest L2 norm of one update; null sets no limit.
        epsilon: what one patient may spend over all experiments; null asks for no privacy budget.

    >>> from fedrad.config.checking import checked
    >>> site = checked(SiteFile, {"name": "nord", "data": "phantom", "min_patients": 10,
    ...     "max_upload_mb": 50, "max_norm": None,
    ...     "coordinator": {"host": "localhost", "port": 9092}}, where="site.yaml")
    >>> site.allow.actions, site.experiments, site.min_cell
    ((), (), 5)
    """

    schema_version: Literal[1] = 1
    coordinator: Coordinator
    certificates: Certificates = Certificates()
    task: Task | None = None
    state_dir: Path = Path("state")
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    allow: Allow = Allow()
    experiments: Literal["any"] | tuple[str, ...] = ()
    # No default: whoever takes a limit out of the file must say what is to hold instead.
    min_patients: Annotated[int, Field(gt=0)]
    max_upload_mb: Annotated[float, Field(gt=0)]
    max_norm: Annotated[float, Field(gt=0)] | None
    epsilon: Annotated[float, Field(gt=0)] | None = None
    min_sites: Annotated[int, Field(gt=0)] = 2
    min_cell: Annotated[int, Field(gt=0)] = 5

    @field_validator("experiments", mode="before")
    @classmethod
    def _digests(cls, value: Any) -> Any:
        if value == "any":
            return value
        if not isinstance(value, list | tuple):
            raise ValueError(f"needs any, or a list of approved digests, found {value!r}")
        for digest in value:
            if not (isinstance(digest, str) and _is_digest(digest)):
                raise ValueError(
                    f"{digest!r} is no experiment's digest ({_DIGEST} hexadecimal digits; "
                    "fedrad site approve FILE writes them)"
                )
        return tuple(value)

    def under(self, folder: Path) -> "SiteFile":
        """Return the site with every relative path made absolute, from a folder."""
        keys = self.certificates
        return self.model_copy(
            update={
                "data_root": self.data_root and str(folder / self.data_root),
                "state_dir": folder / self.state_dir,
                "certificates": Certificates(
                    ca=folder / keys.ca,
                    private_key=folder / keys.private_key,
                    public_key=folder / keys.public_key,
                ),
            }
        )


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST and set(text) <= set("0123456789abcdef")

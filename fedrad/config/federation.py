"""What a federation's organiser writes: its name, where the coordinator is reached, its sites."""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from fedrad.config.checking import checked
from fedrad.config.experiment import POOLED, Frozen
from fedrad.config.names import SiteName
from fedrad.config.site import HostName, Port

__all__ = ["FederationFile", "Member", "Service"]

_TAKEN = ("ca", "coordinator", POOLED)
"""Names of folders beside the sites' own, and the name that stands for all sites."""


class Service(Frozen):
    """Where the coordinator is reached.

    Args:
        host: the name, or address, that sites connect to.
        also: further names and addresses that its certificate is to hold for.
        fleet_port: the only one that sites always need; the firewall line is about it.
        control_port: for the researcher, who submits experiments.
        health_port: says, without a secret, whether the coordinator is well.
        stream_port: takes the sites' streams while an experiment that cuts the network is run;
            null in a federation that never does.
    """

    host: HostName
    also: tuple[HostName, ...] = ()
    fleet_port: Port = 9092
    control_port: Port = 9093
    health_port: Port = 9094
    stream_port: Port | None = 9095

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        named = (self.fleet_port, self.control_port, self.health_port, self.stream_port)
        ports = [port for port in named if port is not None]
        if len(set(ports)) < len(ports):
            raise ValueError(f"the ports must differ, found {', '.join(map(str, ports))}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names and addresses, each once."""
        return tuple(dict.fromkeys((self.host, *self.also)))


class Member(Frozen):
    """A site, as its federation knows it.

    Args:
        data_from: a site file whose data go into the kit, for a demo; a path from this file's
            folder. Without it the hospital fills in its own.
        public_key: the public half of a key made at the hospital (`fedrad site keygen`); a path
            from this file's folder. Without it the kit holds a private key.
    """

    data_from: Path | None = None
    public_key: Path | None = None


class FederationFile(Frozen):
    """A federation: what `fedrad provision` makes startup kits from.

    >>> from fedrad.config.checking import checked
    >>> federation = checked(FederationFile, {"name": "demo", "coordinator": {"host": "localhost"},
    ...     "sites": {"nord": {}, "sued": {}}}, where="federation.yaml")
    >>> federation.coordinator.fleet_port, sorted(federation.sites)
    (9092, ['nord', 'sued'])
    """

    name: SiteName
    coordinator: Service
    sites: dict[SiteName, Member] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _named_alone(cls, raw: Any) -> Any:
        # "nord:" with nothing after it is a site that says nothing about itself.
        if isinstance(raw, dict) and isinstance(raw.get("sites"), dict):
            names = Counter(unicodedata.normalize("NFC", str(name)) for name in raw["sites"])
            for name, number in names.items():
                if number > 1:
                    raise ValueError(f"sites: the name '{name}' stands twice")
            sites = {
                name: {} if member is None else member for name, member in raw["sites"].items()
            }
            return {**raw, "sites": sites}
        return raw

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        # Folders bear the names, and some file systems do not tell "Nord" from "nord".
        folded = [name.casefold() for name in self.sites]
        for name in self.sites:
            if folded.count(name.casefold()) > 1:
                raise ValueError(f"sites: the name '{name}' stands twice (case does not count)")
            if name.casefold() in _TAKEN:
                raise ValueError(f"sites: no site may be named one of {', '.join(_TAKEN)}")
        return self

    def with_stream_port(self, port: int) -> "FederationFile":
        """Return the federation with another port for split learning's streams.

        Raises:
            ConfigError: it is no port, or another service's.
        """
        service = {**self.coordinator.model_dump(), "stream_port": port}
        return self.model_copy(
            update={"coordinator": checked(Service, service, where="--stream-port")}
        )

    def under(self, folder: Path) -> "FederationFile":
        """Return the federation with its paths made absolute, from a folder."""
        sites = {
            name: Member(
                data_from=member.data_from and folder / member.data_from,
                public_key=member.public_key and folder / member.public_key,
            )
            for name, member in self.sites.items()
        }
        return self.model_copy(update={"sites": sites})

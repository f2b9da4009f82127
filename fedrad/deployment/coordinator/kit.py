"""A coordinator's startup kit: its certificates, the sites' public keys, and its own state."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from fedrad.config import FederationFile, load_federation
from fedrad.config.names import site_in
from fedrad.deployment.coordinator.superlink import SuperLinkClient, SuperLinkEndpoint
from fedrad.deployment.kits.keys import read_public_key
from fedrad.errors import ConfigError, SiteFailedError

__all__ = ["CoordinatorKit", "public_key"]

_LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class CoordinatorKit:
    """A coordinator's startup kit, as `provision` makes it."""

    folder: Path
    federation: FederationFile

    @staticmethod
    def load(folder: Path) -> "CoordinatorKit":
        """Read a kit.

        Raises:
            ConfigError: the folder is no coordinator's kit.
        """
        needed = ("federation.yaml", "ca.crt", "server.pem", "server.key")
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise ConfigError(
                f"{folder}: is no coordinator's kit, {', '.join(missing)} is missing; "
                "fedrad provision makes one"
            )
        return CoordinatorKit(folder.resolve(), load_federation(folder / "federation.yaml"))

    @property
    def state(self) -> Path:
        """Return the folder of what the coordinator keeps for itself."""
        return self.folder / "state"

    @property
    def secret(self) -> Path:
        """Return the file of the secret that lets a process of this machine take a run's task."""
        return self.state / "task.secret"

    def public_keys(self) -> dict[str, bytes]:
        """Return who may connect: site -> public key as PEM, which Flower knows a node by."""
        return {site: public_key(path) for site, path in self.key_files().items()}

    def key_files(self) -> dict[str, Path]:
        """Return site -> the file of its public key."""
        return {site_in(path.stem): path for path in sorted((self.folder / "sites").glob("*.pub"))}

    def link(self, *, patience: float = 30.0) -> SuperLinkClient:
        """Return the door to this kit's SuperLink.

        Raises:
            SiteFailedError: the coordinator was never started.
        """
        if not self.secret.is_file():
            raise SiteFailedError(
                f"{self.folder.name}: the coordinator was never started here; "
                f"run fedrad coordinator start {self.folder}"
            )
        service = self.federation.coordinator
        ca = (self.folder / "ca.crt").read_bytes()
        address = f"{_LOCAL}:{service.control_port}"
        return SuperLinkClient(
            SuperLinkEndpoint(address, service.host, ca, self.secret.read_bytes()),
            patience=patience,
        )


def public_key(path: Path) -> bytes:
    """Return a site's public key as PEM, which Flower knows a node by.

    Raises:
        ConfigError: the file cannot be read or holds no key of a site.
    """
    return load_ssh_public_key(read_public_key(path)).public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )

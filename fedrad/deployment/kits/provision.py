"""Startup kits: one federation file in, one folder and archive a site out, and the coordinator's.

```
kits/
    ca/ca.key  ca.crt              the authority; after provisioning it can be kept elsewhere
    coordinator/                   federation.yaml, ca.crt, server.pem, server.key, README.txt
        sites/NAME.pub             who may connect
        revoked/NAME-<key>.pub     who may not any more
    NAME/  NAME.tar.gz             site.yaml, ca.crt, node.key, node.pub, README.txt, ...
```
What exists is never changed but by `rotate_key` and `revoke`. A private key is in its owner's
folder and archive and nowhere else.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from shlex import quote

from fedrad import __version__
from fedrad.config import FederationFile, load_federation, load_site
from fedrad.config.names import file_name
from fedrad.config.writing import as_yaml
from fedrad.core.files import write_atomic
from fedrad.deployment.kits.archive import write_archive
from fedrad.deployment.kits.certificates import (
    issue_server,
    make_authority,
    names_of,
    read_certificate,
    signed_by,
)
from fedrad.deployment.kits.keys import (
    key_fingerprint,
    make_node_key,
    public_key_of,
    read_public_key,
)
from fedrad.deployment.kits.kit_templates import POLICY, render_template
from fedrad.errors import ConfigError
from fedrad.registry import nearest

__all__ = ["COORDINATOR", "Kits", "provision", "revoke", "rotate_key"]

COORDINATOR = "coordinator"
_KIT = (
    ".env",
    "README.txt",
    "ca.crt",
    "docker-compose.yml",
    "fedrad-site.service",
    "node.key",
    "node.pub",
    "site.yaml",
)


@dataclass(frozen=True)
class Kits:
    """What provisioning did.

    Args:
        made: files that were not there before, from the kits' folder.
        kept: how many were there and stayed as they are.
        notes: what the organiser should know.
    """

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def provision(federation: FederationFile, out: Path) -> Kits:
    """Make what is missing of a federation's kits; change nothing that exists.

    Raises:
        ConfigError: a key, certificate or site file that is there does not fit.
        RunError: a file cannot be written.
    """
    kits = Kits()
    out.mkdir(parents=True, exist_ok=True)
    _make_coordinator(federation, out, kits)
    known = load_federation(out / COORDINATOR / "federation.yaml").coordinator.stream_port
    if known != federation.coordinator.stream_port:
        kits.notes.append(
            f"{COORDINATOR}/federation.yaml keeps stream_port {known}; "
            f"--rotate {COORDINATOR} writes it anew"
        )
    for site in sorted(federation.sites):
        if _is_revoked(out, site):
            kits.notes.append(
                f"{site} is revoked and gets no kit; --rotate {quote(site)} lets it in"
            )
            continue
        _make_site(federation, site, out, kits)
    return kits


def rotate_key(federation: FederationFile, out: Path, name: str) -> Kits:
    """Give a site a new key, or the coordinator a new certificate, and drop the old one.

    Raises:
        ConfigError: there is no such site, or its key is made at the hospital and is still the old.
    """
    _check_known(federation, name)
    folder = out / file_name(name)
    if name == COORDINATOR:
        # The federation file too: its ports or names may be the reason.
        for name in ("server.key", "server.pem", "federation.yaml", "README.txt"):
            (folder / name).unlink(missing_ok=True)
        return provision(federation, out)
    if federation.sites[name].public_key is None:
        (folder / "node.key").unlink(missing_ok=True)
    elif _given_key(federation, name) == _registered(out, name):
        raise ConfigError(
            f"{name}: its key is made at the hospital and is still the registered one; "
            "let the hospital make a new one (fedrad site keygen) and send the public half"
        )
    _retire(out, name)
    for file in (folder / "node.pub", out / f"{file_name(name)}.tar.gz"):
        file.unlink(missing_ok=True)
    kits = Kits()
    _make_coordinator(federation, out, kits)
    _make_site(federation, name, out, kits)
    return kits


def revoke(federation: FederationFile, out: Path, name: str) -> Kits:
    """Take a site's key from those that may connect, and delete the private half and archive here.

    The site's own folder keeps what else is in it: its site file, its state, its audit log.

    Raises:
        ConfigError: there is no such site, or it was never provisioned.
    """
    _check_known(federation, name)
    if name == COORDINATOR or not _retire(out, name):
        raise ConfigError(f"--revoke {name}: no key of this name is registered; nothing to revoke")
    folder = out / file_name(name)
    for file in (folder / "node.key", folder / "node.pub", out / f"{folder.name}.tar.gz"):
        file.unlink(missing_ok=True)
    return Kits(notes=[f"{name} is revoked; a running coordinator drops it in seconds"])


def _make_coordinator(federation: FederationFile, out: Path, kits: Kits) -> None:
    key, authority = out / "ca" / "ca.key", out / "ca" / "ca.crt"
    folder, names = out / COORDINATOR, federation.coordinator.names
    for private in (authority.parent, folder):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make(out, authority, kits, lambda: make_authority(key, authority, name=federation.name))
    _write(out, folder / "ca.crt", kits, authority.read_bytes)
    server = (folder / "server.key", folder / "server.pem")
    if not server[1].exists():
        # A crash between the two files left a key without a certificate: it served nobody.
        server[0].unlink(missing_ok=True)
    _make(out, server[1], kits, lambda: issue_server(key, authority, *server, names))
    _check_server(server[1], authority, names)
    plain = federation.model_dump(mode="json", exclude={"sites"}) | {
        "sites": {name: {} for name in sorted(federation.sites)}
    }
    _write(out, folder / "federation.yaml", kits, as_yaml(plain).encode)
    about = {"federation": federation.name, **federation.coordinator.model_dump()}
    for file, template in (
        ("README.txt", "coordinator.txt"),
        ("fedrad-coordinator.service", "fedrad-coordinator.service"),
    ):
        _write(out, folder / file, kits, render_template(template, about).encode)


def _check_server(certificate: Path, authority: Path, names: tuple[str, ...]) -> None:
    """Refuse a certificate that is there and does not hold for what the federation file says."""
    found = read_certificate(certificate)
    missing = sorted(set(names) - set(names_of(found)))
    if missing:
        raise ConfigError(
            f"coordinator/{certificate.name} does not hold for {', '.join(missing)}; "
            "--rotate coordinator makes one that does"
        )
    if not signed_by(found, read_certificate(authority)):
        raise ConfigError(
            f"coordinator/{certificate.name} was not signed by ca/{authority.name}; "
            "--rotate coordinator makes one that is"
        )


def _make_site(federation: FederationFile, site: str, out: Path, kits: Kits) -> None:
    folder = out / file_name(site)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    own_key = federation.sites[site].public_key is not None
    if own_key:
        public = _given_key(federation, site) + f" {site}\n".encode()
        _write(out, folder / "node.pub", kits, lambda: public)
    else:
        key, half = folder / "node.key", folder / "node.pub"
        _make(out, half, kits, lambda: make_node_key(key, half, comment=site))
        if key.exists() and public_key_of(key) != read_public_key(half):
            raise ConfigError(f"{site}/node.pub is not the public half of {site}/node.key")
    _write(out, folder / "ca.crt", kits, (out / COORDINATOR / "ca.crt").read_bytes)
    about = {
        "federation": federation.name,
        "site": site,
        "folder": folder.name,
        "project": _project(site, folder / "ca.crt"),
        "named": as_yaml({"name": site}).strip(),
        "host": federation.coordinator.host,
        "port": federation.coordinator.fleet_port,
        "stream_port": federation.coordinator.stream_port,
        "version": __version__,
        "data": _demo_data(federation, site),
        "own_key": own_key,
        **POLICY,
    }
    port, own = federation.coordinator.stream_port, folder / "site.yaml"
    if port and own.exists() and "stream_port" not in own.read_text(encoding="utf-8"):
        kits.notes.append(
            f"{site}/site.yaml is the hospital's own and names no stream_port; for split learning "
            f"its people add stream_port: {port} under coordinator"
        )
    for file in (".env", "site.yaml", "README.txt", "docker-compose.yml", "fedrad-site.service"):
        _write(out, folder / file, kits, render_template(file.removeprefix("."), about).encode)
    archive = out / f"{folder.name}.tar.gz"
    _make(out, archive, kits, lambda: write_archive(archive, folder, _KIT))
    # Last: a site is registered when its kit is whole.
    registered = _registration(out, site)
    _write(out, registered, kits, (folder / "node.pub").read_bytes)


def _project(site: str, authority: Path) -> str:
    """Return a name for compose: in letters that it takes, and no other federation's kit has it."""
    plain = re.sub(r"[^a-z0-9]+", "-", site.lower()).strip("-")
    digest = sha256(authority.read_bytes() + site.encode()).hexdigest()[:8]
    return "-".join(filter(None, ("fedrad", plain, digest)))


def _demo_data(federation: FederationFile, site: str) -> str:
    path = federation.sites[site].data_from
    if path is None:
        return ""
    known = load_site(path)
    root = {"data_root": str(path.parent / known.data_root)} if known.data_root else {}
    return as_yaml({"data": known.data, **root})


def _given_key(federation: FederationFile, site: str) -> bytes:
    path = federation.sites[site].public_key
    assert path is not None
    return read_public_key(path)


def _registered(out: Path, site: str) -> bytes | None:
    path = _registration(out, site)
    return read_public_key(path) if path.exists() else None


def _registration(out: Path, site: str) -> Path:
    return out / COORDINATOR / "sites" / f"{file_name(site)}.pub"


def _is_revoked(out: Path, site: str) -> bool:
    old = (out / COORDINATOR / "revoked").glob(f"{file_name(site)}-*.pub")
    own = any(_name_of(path) == file_name(site) for path in old)
    return _registered(out, site) is None and own


def _name_of(path: Path) -> str:
    return path.stem.rpartition("-")[0]


def _retire(out: Path, site: str) -> bool:
    """Move a site's registered key to the revoked ones; return whether there was one."""
    public = _registered(out, site)
    if public is None:
        return False
    old = out / COORDINATOR / "revoked" / f"{file_name(site)}-{key_fingerprint(public)}.pub"
    old.parent.mkdir(exist_ok=True)
    os.replace(_registration(out, site), old)
    return True


def _check_known(federation: FederationFile, name: str) -> None:
    names = (*sorted(federation.sites), COORDINATOR)
    if name not in names:
        raise ConfigError(f"'{name}' is not one of {', '.join(names)}{nearest(name, names)}")


def _write(out: Path, path: Path, kits: Kits, content: Callable[[], bytes]) -> None:
    _make(out, path, kits, lambda: write_atomic(path, content()))


def _make(out: Path, path: Path, kits: Kits, make: Callable[[], None]) -> None:
    """Make a file unless it is there, and note which it was."""
    where = path.relative_to(out).as_posix()
    if path.exists():
        kits.kept.append(where)
        return
    make()
    kits.made.append(where)

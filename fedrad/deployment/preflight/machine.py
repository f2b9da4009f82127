"""The machine: keys and their permissions, disk, memory, device, versions, the audit log."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import torch

from fedrad.config import SiteFile
from fedrad.deployment.kits.certificates import read_certificate
from fedrad.deployment.kits.keys import closed, key_fingerprint, public_key_of, read_public_key
from fedrad.deployment.preflight.check_result import CheckResult, amber, green, red
from fedrad.deployment.site.audit import AuditLog
from fedrad.errors import ConfigError, RunError

__all__ = ["check_keys", "check_machine", "check_state"]

_GB = 10**9
_FLOWER = "1.39."
_OWNER = "the machine's owner"


def check_keys(site: SiteFile) -> Iterator[CheckResult]:
    """Yield what is found of the site's keys and the federation's certificate."""
    keys = site.certificates
    try:
        public = public_key_of(keys.private_key)
        if read_public_key(keys.public_key) != public:
            yield red(
                "keys",
                f"{keys.public_key.name} is not the public half of {keys.private_key.name}",
                "put both files of one kit, or of one keygen, into the folder",
            )
        else:
            yield _permissions(keys.private_key, public)
    except ConfigError as error:
        problem, _, cure = (closed(keys.private_key) or "").partition("; ")
        if problem:
            # A new key would help nobody: the one that is registered is there.
            yield red("keys", problem, f"{_OWNER}: {cure}")
        else:
            yield red("keys", str(error), "unpack the startup kit; or fedrad site keygen")
    try:
        ends = read_certificate(keys.ca).not_valid_after_utc
    except ConfigError as error:
        yield red("authority", str(error), "unpack the startup kit again")
        return
    if ends - datetime.now(UTC) < timedelta(days=30):
        yield amber("authority", f"ends on {ends:%Y-%m-%d}", "the organiser: provision anew")
    else:
        yield green("authority", f"{keys.ca.name}, until {ends:%Y-%m-%d}")


def _permissions(key: Path, public: bytes) -> CheckResult:
    found = key.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return red(
            "keys",
            f"{key.name} can be read by others (mode {mode:04o})",
            f"{_OWNER}: chmod 600 {key.name}; if others were on this machine, ask for a new key",
        )
    if found.st_uid != os.geteuid():
        return amber("keys", f"{key.name} belongs to another user", f"{_OWNER}: chown {key.name}")
    return green(
        "keys", f"{key.name} is for its owner alone (mode {mode:04o}); {key_fingerprint(public)}"
    )


def check_state(site: SiteFile) -> Iterator[CheckResult]:
    """Yield what is found of the folder of memory, spend and log."""
    folder = site.state_dir
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        yield red("state", "state_dir cannot be written by this user", f"{_OWNER}: chown")
        return
    free = shutil.disk_usage(there).free / _GB
    told = f"{free:.1f} GB free for memory, spend and log"
    if free < 1:
        yield red("disk", told, f"{_OWNER}: at least 1 GB; state_dir may lie elsewhere")
    elif free < 10:
        yield amber("disk", told, f"{_OWNER}: 10 GB are comfortable")
    else:
        yield green("disk", told)
    try:
        audit = AuditLog(folder / "audit.jsonl")
        lines = audit.verify()
        if audit.unfinished():
            told = f"{lines} lines, none missing; after them one that was not written to its end"
            yield amber("audit log", told, "nobody: the site drops it when it starts, and says so")
        else:
            yield green("audit log", f"{lines} lines, none missing")
    except RunError as error:
        cure = f"{_OWNER}: find out who changed it; move it away to start a new one"
        yield red("audit log", str(error), cure)


def check_machine(site: SiteFile) -> Iterator[CheckResult]:
    """Yield what is found of memory, device and versions."""
    free = _memory()
    if free is not None:
        told = f"{free:.1f} GB of memory free"
        cure = f"{_OWNER}: a ResNet-50 on 224 x 224 images takes about 4 GB"
        yield green("memory", told) if free >= 4 else amber("memory", told, cure)
    yield _device(site.device)
    flower, python = version("flwr"), ".".join(map(str, sys.version_info[:3]))
    told = f"fedrad {version('fedrad')}, torch {torch.__version__}, flwr {flower}, Python {python}"
    if flower.startswith(_FLOWER):
        yield green("versions", told)
    else:
        yield red("versions", told, f"{_OWNER}: pip install 'flwr>=1.39,<1.40'")


def _device(name: str) -> CheckResult:
    if name == "cpu":
        return green("device", f"cpu, {os.cpu_count()} cores")
    if not torch.cuda.is_available():
        return red("device", f"{name} is not here", f"{_OWNER}: install a driver, or device: cpu")
    number = torch.device(name).index or 0
    if number >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        return red("device", f"{name} is not here; there are {there}", f"{_OWNER}: cuda:0")
    free, total = (size / _GB for size in torch.cuda.mem_get_info(number))
    told = f"{name}: {torch.cuda.get_device_name(number)}, {free:.0f} of {total:.0f} GB free"
    if free < 4:
        return amber("device", told, f"{_OWNER}: another program holds the card's memory")
    return green("device", told)


def _memory() -> float | None:
    """Return the free memory in GB, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 / _GB if found else None

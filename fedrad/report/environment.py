"""On what machine and with which libraries results came about: other ones round otherwise."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["environment_of"]

_PACKAGES = (
    "fedrad", "flwr", "numpy", "opacus", "pillow", "ray", "safetensors", "torch", "torchvision",
)  # fmt: skip


def environment_of(device: str) -> dict[str, Any]:
    """Return packages' versions, processor, device, threads and time, for `results.json`.

    Bits of a result depend on the processor and its vector instructions, on the libraries and on
    the number of threads of a process; intervals at the edge of zero may depend on the bits.

    Args:
        device: "cpu", "cuda" or "cuda:1".
    """
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {
        **{package: _version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": name,
        "threads": torch.get_num_threads(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's model as Linux names it, elsewhere as Python knows it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()

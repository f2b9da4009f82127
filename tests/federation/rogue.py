"""A site whose worker spoils updates that it sends: python rogue.py SITE_YAML.

Every second one by default; with ROGUE=all one after the other in every way of `WAYS`. Everything
but the worker's last step is the product's own.
"""

import itertools
import os
import struct
import subprocess
import sys
from pathlib import Path

import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from fedrad.deployment.flower_process import environment
from fedrad.deployment.packed_arrays import pack_arrays
from fedrad.deployment.site import supervisor as site
from fedrad.deployment.site import worker as site_worker
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack


def spoiling() -> object:
    """Return what packs an answer, and puts a number that is not one into every second update."""
    updates = itertools.count(1)

    def spoilt(content: RecordDict) -> RecordDict:
        bundle = bundle_of(content)
        if "model" in bundle and next(updates) % 2 == 0:
            name = sorted(bundle["model"])[0]
            bundle["model"][name] = torch.full_like(bundle["model"][name], float("nan"))
        return pack_arrays(pack(bundle, numbers_of(content), config_of(content)))

    return spoilt


def _file(content: RecordDict, data: bytes, kind: str = "uint8") -> RecordDict:
    told = pack_arrays(content)
    told["safetensors"] = ArrayRecord()
    told["safetensors"]["file"] = Array(kind, (len(data),), "numpy.ndarray", data)
    return told


def _number(content: RecordDict, **numbers: float) -> RecordDict:
    return pack_arrays(pack(bundle_of(content), numbers_of(content) | numbers, config_of(content)))


def _more(content: RecordDict) -> RecordDict:
    told = pack_arrays(content)
    told["more"] = MetricRecord({"n": 1.0})
    return told


HEAD = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,)}\n"
WAYS = (
    lambda content: _number(content, **{"num-examples": 1e12}),
    lambda content: _file(content, b""),
    lambda content: _file(content, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(HEAD)) + HEAD),
    lambda content: _file(content, b"PK\x03\x04" + bytes(100)),
    lambda content: _number(content, steps=-1.0),
    _more,
)
"""What is sent instead of an update."""


def spoiling_all() -> object:
    """Return what packs an answer, and spoils one update after the other, each in its way."""
    ways = iter(WAYS)

    def spoilt(content: RecordDict) -> RecordDict:
        update = "steps" in numbers_of(content)
        way = next(ways, pack_arrays) if update else pack_arrays
        return way(content)

    return spoilt


def worker(own, path: Path, port: int, secret: Path) -> subprocess.Popen:
    """Start this file as the site's worker."""
    return subprocess.Popen(
        [sys.executable, __file__, str(path), f"127.0.0.1:{port}"],
        env=environment(own.state_dir / "flower") | {"FEDRAD_TASK_SECRET": str(secret)},
    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        site_worker.pack_arrays = spoiling_all() if os.environ.get("ROGUE") == "all" else spoiling()
        secret = Path(os.environ["FEDRAD_TASK_SECRET"])
        site_worker.run_worker(Path(sys.argv[1]), sys.argv[2], secret)
    site._worker = worker
    site.run_site(Path(sys.argv[1]), lambda sentence: print(f"nord: {sentence}", flush=True))

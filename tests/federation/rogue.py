"""A site whose worker spoils every second update it sends: python rogue.py SITE_YAML.

Everything but the worker's last step is the product's own.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import torch
from flwr.app import RecordDict

from fedrad.federation.child import environment
from fedrad.federation.hospital import site, tasks
from fedrad.federation.records import bundle_of, config_of, numbers_of, pack
from fedrad.federation.wire import packed


def spoiling() -> object:
    """Return what packs an answer, and puts a number that is not one into every second update."""
    updates = itertools.count(1)

    def spoilt(content: RecordDict) -> RecordDict:
        bundle = bundle_of(content)
        if "model" in bundle and next(updates) % 2 == 0:
            name = sorted(bundle["model"])[0]
            bundle["model"][name] = torch.full_like(bundle["model"][name], float("nan"))
        return packed(pack(bundle, numbers_of(content), config_of(content)))

    return spoilt


def worker(own, path: Path, port: int, secret: Path) -> subprocess.Popen:
    """Start this file as the site's worker."""
    return subprocess.Popen(
        [sys.executable, __file__, str(path), f"127.0.0.1:{port}"],
        env=environment(own.state_dir / "flower") | {"FEDRAD_TASK_SECRET": str(secret)},
    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        tasks.packed = spoiling()
        tasks.main(Path(sys.argv[1]), sys.argv[2], Path(os.environ["FEDRAD_TASK_SECRET"]))
    site._worker = worker
    site.run_site(Path(sys.argv[1]), lambda sentence: print(f"nord: {sentence}", flush=True))

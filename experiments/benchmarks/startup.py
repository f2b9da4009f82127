"""How long after typing `fedrad run experiments/quickstart.yaml` the first batch is trained.

    python experiments/benchmarks/startup.py

From the start of the process to the first gradient step of the first site: imports, the YAML, the
generated images, the forked workers. Beside it, what `import torch` takes alone. Compiled bytecode
is written by a run before those that are measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = "import sys; from fedrad.cli import main; sys.argv[0] = 'fedrad'; main()"
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def first_batch() -> float:
    """Seconds from the start of the process to the first gradient step."""
    with tempfile.TemporaryDirectory() as out:
        words = ["run", "experiments/quickstart.yaml", "--arm", "fedavg", "--set", "rounds=1"]
        began = time.time()
        command = [sys.executable, "-c", RUN, *words, "--profile", "--out", out]
        subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        profile = json.loads((Path(out) / "profile.json").read_text(encoding="utf-8"))
        return float(profile["first_training"]) - began


def torch_alone() -> float:
    """Seconds of a process that only imports torch."""
    began = time.time()
    subprocess.run([sys.executable, "-c", "import torch"], env=ENVIRONMENT, check=True)
    return time.time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    first_batch()
    pairs = [(torch_alone(), first_batch()) for _ in range(arguments.runs)]
    torch, batch = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"import torch alone {torch:.2f} s, first batch after {batch:.2f} s")
    if arguments.json:
        print(json.dumps({"torch_s": torch, "first_batch_s": batch, "runs": arguments.runs}))


if __name__ == "__main__":
    main()

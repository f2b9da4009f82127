"""How a process that trains is set up."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to keep memory")
def test_memory_that_a_step_frees_is_there_for_the_next_one() -> None:
    """40 MB are 9,766 pages; given back, each is a fault at the next step, else none is."""
    code = """
import resource, torch
from fedrad.training.process import set_up_process
set_up_process()
assert torch.get_num_threads() == 1
for _ in range(3): torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000

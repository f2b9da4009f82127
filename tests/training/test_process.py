"""How a process that trains is set up."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to keep memory")
def test_memory_that_a_step_frees_is_there_for_the_next_one() -> None:
    """40 MB are 9,766 pages; given back, each is a fault in each of 20 steps: 195,320."""
    code = """
import resource, torch
from fedrad.training.process import set_up_process
set_up_process()
assert torch.get_num_threads() == 1
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps(count):
    for _ in range(count):
        torch.ones(10_000_000)
steps(30)
before = faults()
steps(20)
print(faults() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 195_320 / 4

"""What the process asks of the machine's memory."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from pipeline.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def activations():
    return [torch.ones(16 << 20) for _ in range(2)]  # of 64 MiB, more than glibc ever keeps by itself
for _ in range(6):
    activations()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    activations()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep what is freed")
def test_freed_memory_is_kept_for_the_next_step_instead_of_being_faulted_in_again() -> None:
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True, text=True).stdout)
        for how in ("default", "keep")
    )
    assert given_back > 100_000, "glibc keeps it by itself now"
    assert kept < given_back / 2

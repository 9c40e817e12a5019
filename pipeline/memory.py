"""The free memory of a device or of this machine, how to keep it, and PyTorch's errors when it runs out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from runtime.errors import OutOfMemory, first_line

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt (malloc.h)."""
KEPT = 1 << 30
"""Bytes: blocks up to this size are kept, and as much is free on top of the heap before any is given back."""
OLDER = 32 << 20
"""What older glibc takes at most as MMAP_THRESHOLD."""
NO_MEMORY = re.compile(r"out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|can't allocate memory")
"""What the CUDA runtime, its libraries and the CPU's allocator say, whose errors have no type of their own."""


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a CUDA device; for the CPU, those of the machine or, if fewer, of its container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((CGROUP / f"memory.{what}").read_text()) for what in ("max", "current"))
        return min(_of_machine(), max(limit - used, 0))
    return _of_machine()


def keep_freed_memory() -> None:
    """Make glibc keep the blocks that PyTorch frees on the CPU. Without glibc, do nothing.

    By default, glibc returns large blocks to the system. The system then provides them again page by page, each zeroed
    and with a page fault: for the activations of every layer and every step. The cost:
    docs/adr/0039-freed-memory-is-kept.md.
    """
    if platform.libc_ver()[0] == "glibc":
        glibc = ctypes.CDLL(None)
        # Where that much is refused, the threshold would stay at 128 KiB: setting the other ends its own rise.
        glibc.mallopt(MMAP_THRESHOLD, KEPT) or glibc.mallopt(MMAP_THRESHOLD, OLDER)
        glibc.mallopt(TRIM_THRESHOLD, KEPT)


def ran_out(error: RuntimeError) -> bool:
    """Return whether PyTorch raised this error because a device or the machine ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or bool(NO_MEMORY.search(str(error)))


@contextlib.contextmanager
def running_out() -> Iterator[None]:
    """Turn PyTorch's errors for exhausted memory into `OutOfMemory`."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(
            f"memory ran out: {first_line(error)}",
            hint="stop other programs that use this memory, or use a smaller batch or a smaller network",
        ) from None


def _of_machine() -> int:
    with contextlib.suppress(OSError):
        if found := re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text()):
            return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # not Linux: half of what there is

"""How much memory is free, of a device or of this machine."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a CUDA device; of the CPU, those of the machine or, if less, of its container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((CGROUP / f"memory.{what}").read_text()) for what in ("max", "current"))
        return min(_of_machine(), max(limit - used, 0))
    return _of_machine()


def _of_machine() -> int:
    with contextlib.suppress(OSError):
        if found := re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text()):
            return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # not Linux: half of what there is

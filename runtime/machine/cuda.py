"""What a GPU computes by beside itself: the driver, and the CUDA libraries that this process has loaded."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

from runtime.machine.system_files import ROOT, read

if TYPE_CHECKING:
    from pathlib import Path

DRIVER, CUDA, CUDNN = "driver", "cuda_runtime", "cudnn"
NAMES = (DRIVER, CUDA, CUDNN)
"""Of what is said; a journal of before says none."""
DRIVERS_VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
"""In /proc/driver/nvidia/version."""
LIBRARY = re.compile(r"/lib(cudart|cudnn)(?:-[0-9a-f]+)?\.so[.\d]*$")
"""A file of CUDA's runtime or of cuDNN, also as a wheel renames it."""


def accelerator(device: str, root: Path = ROOT) -> dict[str, str]:
    """Return what is said of the device that a session computes on, by its name; of a CPU nothing but that."""
    return {"accelerator": device} | ({} if device == "cpu" else gpu_software(root))


def gpu_software(root: Path = ROOT) -> dict[str, str]:
    """Return the versions of driver, CUDA runtime and cuDNN, as far as they are known; nothing where there is no GPU.

    A library counts once it is loaded: which one that was, no package says for sure. Of several all are said.
    """
    said = DRIVERS_VERSION.search(read(root / "proc/driver/nvidia/version") or "")
    found: dict[str, set[str]] = {DRIVER: {said[1]} if said else set(), CUDA: set(), CUDNN: set()}
    for path in sorted({line.split(maxsplit=5)[-1] for line in (read(root / "proc/self/maps") or "").splitlines()}):
        if library := LIBRARY.search(path):
            name, version = (CUDA, _cuda) if library[1] == "cudart" else (CUDNN, _cudnn)
            try:
                found[name].add(version(ctypes.CDLL(path)))
            except (OSError, AttributeError):  # replaced on disk since, or without the function
                continue
    return {name: ", ".join(sorted(versions)) for name, versions in found.items() if versions}


def _cuda(library: ctypes.CDLL) -> str:
    number = ctypes.c_int()
    library.cudaRuntimeGetVersion(ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _cudnn(library: ctypes.CDLL) -> str:
    """Return as 9.10.2 what cuDNN 9 calls 91002, and as 8.9.7 what cuDNN 8 calls 8907."""
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = int(library.cudnnGetVersion())
    major, rest = divmod(number, 10_000 if number >= 90_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"

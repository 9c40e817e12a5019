"""The software under a GPU's figures: the driver, and the CUDA libraries that this process has loaded."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

from runtime.machine.system_files import ROOT, read

if TYPE_CHECKING:
    from pathlib import Path

DRIVER, CUDA, CUDNN = "driver", "cuda_runtime", "cudnn"
NAMES = (DRIVER, CUDA, CUDNN)
"""The names of the versions. Journals of earlier versions have none of them."""
DRIVERS_VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
"""The driver's version in /proc/driver/nvidia/version."""
LIBRARY = re.compile(r"/lib(cudart|cudnn)(?:-[0-9a-f]+)?\.so[.\d]*$")
"""A file of CUDA's runtime or of cuDNN, also under the name that a wheel gives it."""


def accelerator(device: str, root: Path = ROOT) -> dict[str, str]:
    """Return the name of a session's device and, unless it is the CPU, the versions of the GPU's software."""
    return {"accelerator": device} | ({} if device == "cpu" else gpu_software(root))


def gpu_software(root: Path = ROOT) -> dict[str, str]:
    """Return the versions of driver, CUDA runtime and cuDNN, as far as they are known; nothing without a GPU.

    Only loaded libraries count, because installed packages do not tell which library is loaded. If several versions of
    one are loaded, all are listed.
    """
    said = DRIVERS_VERSION.search(read(root / "proc/driver/nvidia/version") or "")
    found: dict[str, set[str]] = {DRIVER: {said[1]} if said else set(), CUDA: set(), CUDNN: set()}
    for path in sorted({line.split(maxsplit=5)[-1] for line in (read(root / "proc/self/maps") or "").splitlines()}):
        if library := LIBRARY.search(path):
            name, version = (CUDA, _cuda) if library[1] == "cudart" else (CUDNN, _cudnn)
            try:
                found[name].add(version(ctypes.CDLL(path)))
            except (OSError, AttributeError):  # replaced on disk since it was loaded, or without the function
                continue
    return {name: ", ".join(sorted(versions)) for name, versions in found.items() if versions}


def _cuda(library: ctypes.CDLL) -> str:
    number = ctypes.c_int()
    library.cudaRuntimeGetVersion(ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _cudnn(library: ctypes.CDLL) -> str:
    """Return cuDNN's version: 9.10.2 for 91002 of cuDNN 9, 8.9.7 for 8907 of cuDNN 8."""
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = int(library.cudnnGetVersion())
    major, rest = divmod(number, 10_000 if number >= 90_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"

"""Facts about a board from its system files: FACTS, each a text, or None if its file is missing.

Paths and formats: NVIDIA's Jetson Linux Developer Guide (r36.4, r38.2) and the kernel's documentation of devfreq and
cpufreq. A container sees files under /etc and /var/lib only if they are mounted into it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from runtime.machine.system_files import found, number, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JETPACKS = {
    "36.3": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}
"""The JetPack of each release of Jetson Linux, by the start of the release's number; the longest match counts."""
SOCS = {
    "nvidia,tegra234": "Orin, integrated (Ampere, compute capability 8.7)",
    "nvidia,tegra264": "Thor, integrated (Blackwell, compute capability 11.0)",
}
"""The GPU of each system on a chip, by its name in the device tree."""
GPU_CLOCKS = ("*.gpu", "*.ga10b", "gpu-gpc-*")
"""Names of the GPU under /sys/class/devfreq: Orin's, by driver, then Thor's."""
PINNED = "pinned"
"""The last word of a clock's limits if the clock is fixed."""
DEVFREQ, CPUFREQ = "sys/class/devfreq", "sys/devices/system/cpu/cpufreq/policy*"


def board(root: Path) -> str | None:
    """Return the model of the board or, for a PC, of the machine."""
    return read(root / "proc/device-tree/model") or read(root / "sys/class/dmi/id/product_name")


def l4t(root: Path) -> str | None:
    """Return the release of Jetson Linux, such as '36.4.3'."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", read(root / "etc/nv_tegra_release") or "")
    return f"{match[1]}.{match[2]}" if match else None


def jetpack(root: Path) -> str | None:
    """Return the installed JetPack, or else the one to which this release of Jetson Linux belongs."""
    packages = read(root / "var/lib/dpkg/status") or ""
    if match := re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([^\s+]+)", packages, re.MULTILINE):
        return match[1]
    release = l4t(root) or ""
    starts = [start for start in JETPACKS if f"{release}.".startswith(f"{start}.")]
    return JETPACKS[max(starts, key=len)] if starts else None


def gpu(root: Path) -> str | None:
    """Return the GPU on the chip."""
    names = (read(root / "proc/device-tree/compatible") or "").split()
    return next((SOCS[name] for name in names if name in SOCS), None)


def tensorrt(root: Path) -> str | None:
    """Return the version of the TensorRT library that is installed."""
    versions = [path.name.partition(".so.")[2] for path in found(root, "usr/lib/*/libnvinfer.so.*.*.*")]
    return max(versions, key=lambda text: [int(part) for part in re.findall(r"\d+", text)], default=None)


def cuda(root: Path) -> str | None:
    """Return the version of the CUDA toolkit or runtime that is installed."""
    try:
        return str(json.loads(read(root / "usr/local/cuda/version.json") or "")["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return None


def power_mode(root: Path) -> str | None:
    """Return the power mode that nvpmodel set, with its name if nvpmodel.conf is there: 'MAXN (0)'."""
    match = re.search(r"pmode:0*(\d+)", read(root / "var/lib/nvpmodel/status") or "")
    if not match:
        return None
    table = read(root / "etc/nvpmodel.conf") or ""
    name = re.search(rf"<\s*POWER_MODEL\s+ID={match[1]}\s+NAME=(\S+)\s*>", table)
    return f"{name[1]} ({match[1]})" if name else match[1]


def gpu_clock(root: Path) -> str | None:
    """Return the limits of the GPU's clock."""
    names = (path for pattern in GPU_CLOCKS for path in found(root, f"{DEVFREQ}/{pattern}"))
    first = next(names, None)
    return _clock([first], "", 1e6) if first else None


def cpu_clock(root: Path) -> str | None:
    """Return the limits of the cores' clocks."""
    return _clock(found(root, CPUFREQ), "scaling_", 1e3)


def _clock(directories: list[Path], prefix: str, per_mhz: float) -> str | None:
    """Return the limits of clocks, which a power mode and `jetson_clocks` set. The clocks themselves vary."""
    lows, highs = ([number(directory / f"{prefix}{end}_freq") for directory in directories] for end in ("min", "max"))
    low = min((value / per_mhz for value in lows if value is not None), default=None)
    high = max((value / per_mhz for value in highs if value is not None), default=None)
    if low is None or high is None:
        return None
    return f"{high:g} MHz, {PINNED}" if low == high else f"{low:g} to {high:g} MHz"


def memory(root: Path) -> str | None:
    """Return the machine's memory, which a Jetson's GPU shares."""
    match = re.search(r"MemTotal:\s+(\d+) kB", read(root / "proc/meminfo") or "")
    return f"{int(match[1]) / 2**20:.1f} GiB" if match else None


FACTS: dict[str, Callable[[Path], str | None]] = {
    "board": board,
    "jetpack": jetpack,
    "l4t": l4t,
    "tensorrt": tensorrt,
    "cuda": cuda,
    "gpu": gpu,
    "power_mode": power_mode,
    "gpu_clock": gpu_clock,
    "cpu_clock": cpu_clock,
    "memory": memory,
}
"""The functions that read the facts, by key of the machine card."""

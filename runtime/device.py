"""The machine card and the versions of what ran on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CPUINFO = Path("/proc/cpuinfo")
MODEL_KEYS = ("model name", "Model", "Hardware")
"""Lines of /proc/cpuinfo that name the CPU: x86, then ARM boards."""

DECISIVE = ("cpu", "cores", "architecture")
"""Of the machine card: cores decide how a batch is cut."""


def machine_card() -> dict[str, str | int]:
    """Return CPU, cores that this process may use, architecture, operating system and Python."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def made_by(packages: Iterable[str]) -> dict[str, str | int]:
    """Return what the bits of a figure depend on: the packages' versions, the CPU and its cores; no kernel."""
    machine = machine_card()
    return {**software(packages), **{name: machine[name] for name in DECISIVE}}


def cpu_model() -> str:
    """Return what the kernel calls the CPU, else what the platform module knows."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return next((entries[key] for key in MODEL_KEYS if entries.get(key)), platform.processor() or "unknown")


def software(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each package, leaving out those that are not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

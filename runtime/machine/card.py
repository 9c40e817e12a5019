"""The machine card, and the versions of packages."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from runtime.machine.board import FACTS
from runtime.machine.nvml import first_gpu
from runtime.machine.system_files import ROOT, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from runtime.machine.nvml import Gpu

MODEL_KEYS = ("model name", "Model", "Hardware")
"""Lines of /proc/cpuinfo that name the CPU: x86, then ARM boards."""
NOT_FOUND = "not_found"
Card = dict[str, "str | int"]


def machine_card(root: Path = ROOT, gpu: Callable[[], Gpu | None] = first_gpu) -> Card:
    """Return the known facts about this machine, and under `not_found` the names of the unknown ones.

    The facts are CPU, cores that this process may use, architecture, system and Python, then the FACTS of a board, and
    NVML's facts about a GPU. They are only read: no program is started, and no error raised.

    Args:
        root: the root of the system's files, which may be recorded from another machine.
        gpu: returns the GPU.

    """
    asked = gpu()
    known = {name: fact(root) for name, fact in FACTS.items()} | (asked.facts() if asked else {})
    card: Card = {**processor(root), "system": f"{platform.system()} {platform.release()}"}
    card["python"] = platform.python_version()
    card |= {name: fact for name, fact in known.items() if fact is not None}
    missing = [name for name, fact in known.items() if fact is None]
    return {**card, NOT_FOUND: ", ".join(missing)} if missing else card


def made_by(packages: Iterable[str]) -> Card:
    """Return the facts on which the bits of a figure depend: the packages' versions, the CPU and its cores."""
    return {**software(packages), **processor()}


def processor(root: Path = ROOT) -> Card:
    """Return CPU, cores and architecture. The number of cores decides how a batch is cut."""
    return {"cpu": cpu_model(root), "cores": cores(), "architecture": platform.machine()}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model(root: Path = ROOT) -> str:
    """Return the kernel's name of the CPU, or else the platform module's."""
    lines = (read(root / "proc/cpuinfo") or "").splitlines()
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return next((entries[key] for key in MODEL_KEYS if entries.get(key)), platform.processor() or "unknown")


def int8_overflows(root: Path = ROOT) -> bool:
    """Return whether ONNX Runtime's sums of int8 products may overflow on this CPU: x86 without VNNI adds in 16 bits.

    False if the kernel does not list the CPU's instructions.
    """
    flags = re.search(r"^flags\s*:(.*)$", read(root / "proc/cpuinfo") or "", re.MULTILINE)  # ARM calls them Features
    return flags is not None and not {"avx512_vnni", "avx_vnni"} & set(flags[1].split())


def software(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each package, leaving out those that are not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

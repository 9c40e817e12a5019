"""OpenVINO loaded, its devices, and the precision that each is asked to compute in: never a silent other one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from runtime.errors import MissingEnvironment, Page, install

NO_MEMORY = re.compile(
    r"bad_alloc|bad allocation|out.of.memory|out.of.(host|device).memory|OUT_OF_RESOURCES|ALLOCATION_FAILURE|"
    r"failed to allocate|cannot allocate|exceeds? (max|available).*(size|memory)|can't start new thread",
    re.IGNORECASE,
)
"""What OpenVINO and OpenCL say, in an error of no type of its own, where memory ran out."""


@dataclass(frozen=True)
class Arithmetic:
    """A floating-point type that OpenVINO computes in.

    Args:
        name: as OpenVINO's INFERENCE_PRECISION_HINT takes it.
        capability: what a device says that has it.
        computes_in: what `GraphFacts` calls it.

    """

    name: str
    capability: str
    computes_in: str


F32 = Arithmetic("f32", "FP32", "float32")
F16 = Arithmetic("f16", "FP16", "float16")
BF16 = Arithmetic("bf16", "BF16", "bfloat16")
NARROW = (BF16, F16)
"""The narrowest first, as `runtime.graph.facts.REALS` has them."""


@dataclass(frozen=True)
class Provider:
    """A device of OpenVINO, and what it is asked to compute in.

    Args:
        device: as OpenVINO calls it.
        arithmetic: of what is floating point; what a graph quantises stays in integers.
        any_batch: whether it takes batches of any size; else every image is run by itself.

    """

    device: str
    arithmetic: Arithmetic
    any_batch: bool = True


PROVIDERS = {
    "cpu": Provider("CPU", F32),
    "cpu-bf16": Provider("CPU", BF16),
    "cpu-f16": Provider("CPU", F16),
    "gpu": Provider("GPU", F32),
    "gpu-f16": Provider("GPU", F16),
    "npu-f16": Provider("NPU", F16, any_batch=False),
}
"""A device by itself computes in float32: another type is asked for by name, and is in every record of a run by it."""


@cache
def load_core() -> Any:
    """Import OpenVINO and return its Core: one a process.

    Raises:
        MissingEnvironment: it is not installed, or does not load.

    """
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise MissingEnvironment(
            f"OpenVINO is missing: {error}", hint=install("openvino"), page=Page.OPENVINO
        ) from None
    return openvino.Core()


def check_device(core: Any, provider: Provider) -> str:
    """Return what the device calls itself.

    Raises:
        MissingEnvironment: it is not there, or does not compute in what is asked.

    """
    device, wanted = provider.device, provider.arithmetic
    there = sorted({name.partition(".")[0] for name in core.available_devices})
    if device not in there:
        raise MissingEnvironment(f"OpenVINO finds no {device} here", hint=f"it finds: {', '.join(there) or 'none'}")
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if wanted.capability not in able:
        other = ", ".join(each.name for each in (F32, *NARROW) if each.capability in able)
        raise MissingEnvironment(f"this {device} does not compute in {wanted.name}", hint=f"OpenVINO says: {other}")
    return str(core.get_property(device, "FULL_DEVICE_NAME"))


def is_memory(error: Exception) -> bool:
    """Return whether OpenVINO says that memory ran out."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


def said(error: Exception) -> str:
    """Return what an error of OpenVINO says in one line, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not re.match(r"Exception from |Check '|Summary:", line)]
    found = [line.removeprefix("-- ") for line in told if line.startswith("-- ")] or told or lines
    return found[0] if found and found[0] else type(error).__name__

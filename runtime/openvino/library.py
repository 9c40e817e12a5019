"""Loads OpenVINO, and lists its devices with the type in which each must compute."""

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
"""Messages of OpenVINO and OpenCL when memory runs out; such errors have no type of their own."""


@dataclass(frozen=True)
class Arithmetic:
    """A floating-point type in which OpenVINO can compute.

    Args:
        name: its name in OpenVINO's INFERENCE_PRECISION_HINT.
        capability: its name in the capabilities of a device.
        computes_in: its name in `GraphFacts`.

    """

    name: str
    capability: str
    computes_in: str


F32 = Arithmetic("f32", "FP32", "float32")
F16 = Arithmetic("f16", "FP16", "float16")
BF16 = Arithmetic("bf16", "BF16", "bfloat16")
NARROW = (BF16, F16)
"""The narrowest first, in the order of `runtime.graph.facts.REALS`."""


@dataclass(frozen=True)
class Provider:
    """A device of OpenVINO, and the type in which it must compute.

    Args:
        device: OpenVINO's name of the device.
        arithmetic: the type for floating-point operations; quantised parts of a graph stay in integers.
        any_batch: whether the device takes batches of any size. If not, each image runs alone.

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
"""The providers. A device computes in float32 unless the provider's name, which every record has, says otherwise."""


@cache
def load_core() -> Any:
    """Import OpenVINO and return its Core, one per process.

    Raises:
        MissingEnvironment: OpenVINO is not installed, or does not load.

    """
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise MissingEnvironment(
            f"OpenVINO is missing: {error}", hint=install("openvino"), page=Page.OPENVINO
        ) from None
    return openvino.Core()


def check_device(core: Any, provider: Provider) -> str:
    """Return the full name of a provider's device.

    Raises:
        MissingEnvironment: the device is missing, or cannot compute in the provider's type.

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
    """Return whether an error of OpenVINO means that memory ran out."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


def said(error: Exception) -> str:
    """Return an error of OpenVINO in one line, without the locations in its source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not re.match(r"Exception from |Check '|Summary:", line)]
    found = [line.removeprefix("-- ") for line in told if line.startswith("-- ")] or told or lines
    return found[0] if found and found[0] else type(error).__name__

"""The arithmetic of training: the one place that chooses it, enables it and reports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from pipeline.methods.search import Precision
from runtime.errors import MissingEnvironment

AMPERE = (8, 0)
"""The first compute capability with TF32; older ones silently compute such a product in float32."""


def resolve(precision: Precision, device: torch.device) -> Precision:
    """Return the precision for a recipe's setting: `auto` is TF32 on a GPU that supports it, else fp32 (ADR 0004).

    Raises:
        MissingEnvironment: TF32 is requested on a device that lacks it.

    """
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE
    if precision == "auto":
        return "tf32" if has_tf32 else "fp32"
    if precision == "tf32" and not has_tf32:
        what = "this GPU" if device.type == "cuda" else device.type
        raise MissingEnvironment(
            f"TF32 needs an NVIDIA GPU of the Ampere generation or later, not {what}",
            hint="leave train.precision and search.precision at auto",
        )
    return precision


def emulates_bf16(device: torch.device) -> bool:
    """Return whether bf16 is slower than fp32 there: an x86 CPU without instructions for it emulates it (ADR 0004).

    False also means that it is not known: another processor, or a PyTorch without `torch.cpu.get_capabilities`.
    """
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return known.get("avx512_bf16") is False and not (known.get("amx_bf16") or known.get("avx_ne_convert"))


def in_words(precision: Precision, search: Precision | None) -> str:
    """Describe the precision of training and, if it differs, that of the search."""
    return precision if search in (None, precision) else f"{precision}, search in {search}"


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run forward passes and their derivatives in a resolved precision; PyTorch's settings are restored afterwards.

    Enter it again for every step: autocast keeps its bf16 copies of the weights until the block ends.
    """
    with products(precision), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Set how CUDA multiplies float32 for a resolved precision; PyTorch's settings are restored afterwards.

    A backward pass needs nothing else: autograd uses the types that autocast chose in the forward pass.

    These settings keep PyTorch's old and new names for them in agreement. The new `fp32_precision` alone does not:
    reading an old name then raises an error, for example when torch.compile chooses CUDA kernels.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]

"""The arithmetic of training: one place that decides it, switches it on and says what was used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.recipe import Precision
from runtime.errors import MissingEnvironment


def resolve(precision: Precision, device: torch.device) -> Precision:
    """Return the precision used for what a recipe asks: `auto` is fp32 on a CPU and TF32 on CUDA (ADR 0004).

    Raises:
        MissingEnvironment: TF32 is asked for on a device that has none.

    """
    if precision == "auto":
        return "tf32" if device.type == "cuda" else "fp32"
    if precision == "tf32" and device.type != "cuda":
        raise MissingEnvironment(f"TF32 needs a CUDA device, not {device.type}", hint="set train.precision to auto")
    return precision


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run forward passes, and what they differentiate to, in a resolved precision; PyTorch's settings come back.

    Enter it anew for every step: autocast keeps its bf16 copies of the weights until it is left.
    """
    with products(precision), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Let CUDA multiply float32 as a resolved precision says; PyTorch's settings, TF32 convolutions, come back.

    That is all a backward pass needs: what autocast chose forwards, autograd takes backwards by itself.
    """
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, convolution.fp32_precision
    try:
        matmul.fp32_precision = convolution.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before

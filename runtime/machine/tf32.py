"""TF32 is decided once per process, because NVIDIA's libraries read its switch only when they are loaded."""

from __future__ import annotations

import os

from runtime.errors import UsageFault

SWITCH = "NVIDIA_TF32_OVERRIDE"
"""The value 0 forbids TF32 in all libraries of NVIDIA. ONNX Runtime's TensorRT provider has no other option for it."""
_settled: list[bool] = []
"""The choice of this process's first session on a GPU; empty before it."""


def settle_tf32(tf32: bool) -> None:
    """Decide, before a GPU is used, whether it may round the factors of float32 products to TF32.

    Raises:
        UsageFault: an earlier session of this process chose otherwise, or the environment forbids TF32.

    """
    if _settled and _settled[0] is not tf32:
        raise UsageFault(
            f"this process uses the GPU {'with' if _settled[0] else 'without'} TF32 already, and cannot do both",
            hint="open the other session in a process of its own",
        )
    if tf32 and os.environ.get(SWITCH) == "0":
        raise UsageFault(f"{SWITCH}=0 in the environment forbids --tf32", hint="leave out one of them")
    if not tf32:
        os.environ[SWITCH] = "0"
    _settled[:] = [tf32]

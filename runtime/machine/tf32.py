"""TF32 is settled once for a process: NVIDIA's libraries look at their switch when they are loaded, and never again."""

from __future__ import annotations

import os

from runtime.errors import UsageFault

SWITCH = "NVIDIA_TF32_OVERRIDE"
"""Set to 0, it forbids TF32 in all libraries of NVIDIA; ONNX Runtime's TensorRT provider has no option for it."""
_settled: list[bool] = []
"""What the first session of this process on a GPU asked for; empty before it."""


def settle_tf32(tf32: bool) -> None:
    """Settle, before a GPU is used, whether it may round float32 products to TF32; a card may then say so.

    Raises:
        UsageFault: an earlier session of this process asked for the other, or the environment forbids it.

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

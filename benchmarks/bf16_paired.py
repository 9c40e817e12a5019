"""What bf16 costs AdaAD in accuracy: runs of the default recipe in fp32 and bf16, paired by seed.

    python -m benchmarks.bf16_paired RUNS SEED [SEED ...]

A processor without bf16 instructions emulates them far too slowly for a whole run. So the convolutions and linear
layers under autocast are replaced by their definition: operands rounded to bf16, products summed in fp32, the result
rounded to bf16, forward and backward alike. `check` compares that with PyTorch's own bf16 convolution first. What is
between the layers runs in bf16 as autocast has it. fp32 partners are those of benchmarks.methods_on_fashion_mini.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.distill import distill
from pipeline.recipe import load_recipe


def rounded(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the operation with bf16 operands and result, summing in fp32, wherever autocast is on."""

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return operation(x, weight, bias, *rest)
        with torch.autocast("cpu", enabled=False):
            operands = [None if item is None else item.bfloat16().float() for item in (x, weight, bias)]
            return operation(*operands, *rest).bfloat16()

    return run


def check() -> None:
    """Stop unless the stand-in is PyTorch's bf16 convolution: the result to the bit, gradients within a rounding."""
    torch.manual_seed(0)
    x, weight, seed = torch.randn(4, 16, 9, 9), torch.randn(16, 16, 3, 3), torch.randn(4, 16, 9, 9)
    results = []
    for convolution in (F.conv2d, rounded(F.conv2d)):
        points, kernel = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = convolution(points, kernel, None, 1, 1)
        assert out.dtype == torch.bfloat16
        results.append((out, *torch.autograd.grad(out, (points, kernel), seed.bfloat16())))
    assert torch.equal(results[0][0], results[1][0])
    for own, stand_in in zip(*results, strict=True):
        assert (stand_in.float() - own.float()).abs().max() <= 2**-7 * own.float().abs().max()


def main() -> None:
    """Train one student a seed in bf16; `edgeproof evaluate` judges it in fp32 afterwards."""
    check()
    F.conv2d, F.linear = rounded(F.conv2d), rounded(F.linear)  # type: ignore[assignment]
    for seed in sys.argv[2:]:
        recipe = load_recipe("fashion-mini", [f"seed={seed}", "train.precision=bf16"])
        summary = distill(recipe, Path(sys.argv[1]) / f"adaad-bf16-{seed}")
        print(json.dumps(summary.best.model_dump()))


if __name__ == "__main__":
    main()

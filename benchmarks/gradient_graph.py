"""What an input gradient costs, in forward passes: the exported gradient graph, and PyTorch eager beside it.

    python -m benchmarks.gradient_graph [OUTPUT.json]

For each network, (forward + gradient) / forward at batch 64 on the CPU: ONNX Runtime on the exported graphs, and
PyTorch eager on the same network (BN not folded, contiguous), cross-entropy. Theory says 2: a backward pass to the
input costs as much as a forward pass. Forward and gradient are timed alternately, `ROUNDS` times after a warm-up; the
ratio is that of the medians, the spread the quartiles of the paired ratios.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.gradient import gradient_graph
from export.passes import to_bytes
from export.to_onnx import to_onnx
from pipeline.evaluate import TorchSession
from pipeline.models import build_network
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.bundle import InputShape
from runtime.device import machine_card, software
from runtime.session_ort import OrtSession

BATCH, ROUNDS, WARM_UP = 64, 15, 3
SHAPE = InputShape(channels=3, height=32, width=32)
CASES = [(arch, width) for arch in ("resnet18", "mobilenet_v2") for width in (0.25, 1.0)]


def seconds(action: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def ratio(session: Any, x: Any, loss: Any) -> dict[str, Any]:
    """Time forward and forward + gradient alternately."""
    pairs = []
    for _ in range(WARM_UP + ROUNDS):
        pairs.append((seconds(lambda: session.logits(x)), seconds(lambda: session.loss_gradient(x, loss))))
    pairs = pairs[WARM_UP:]
    forward, both = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, _, high = statistics.quantiles([b / f for f, b in pairs], n=4)
    return {
        "forward_ms": round(1e3 * forward, 2),
        "forward_and_gradient_ms": round(1e3 * both, 2),
        "ratio": round(both / forward, 2),
        "quartiles": [round(low, 2), round(high, 2)],
    }


def measure(arch: str, width: float) -> dict[str, Any]:
    """Measure one network behind both sessions."""
    torch.manual_seed(0)
    network = build_network(arch, channels=3, classes=10, width=width).eval()
    forward = to_onnx(network, SHAPE)
    exported = OrtSession(to_bytes(forward), to_bytes(gradient_graph(forward)), precision="fp32")
    eager = TorchSession(network.requires_grad_(False), sha256="", device=torch.device("cpu"))
    x = np.random.default_rng(0).random((BATCH, 3, 32, 32), np.float32)
    labels = np.arange(BATCH) % 10
    return {
        "network": arch,
        "width": width,
        "onnxruntime": ratio(exported, x, cross_entropy(one_hot(labels, 10))),
        "torch_eager": ratio(eager, torch.from_numpy(x), cross_entropy(one_hot(torch.from_numpy(labels), 10))),
    }


def main() -> None:
    """Print a table, and write every figure where a file is named."""
    rows = [measure(*case) for case in CASES]
    print("| network | width | ONNX Runtime | PyTorch eager | eager time / ours |")
    print("|---|---|---|---|---|")
    for row in rows:
        ours, eager = row["onnxruntime"], row["torch_eager"]
        speed = eager["forward_and_gradient_ms"] / ours["forward_and_gradient_ms"]
        figures = [f"{side['ratio']} ({side['quartiles'][0]} to {side['quartiles'][1]})" for side in (ours, eager)]
        print(f"| {row['network']} | {row['width']} | {figures[0]} | {figures[1]} | {speed:.2f} |")
    record = {"batch": BATCH, "n": ROUNDS, "rows": rows, "threads": torch.get_num_threads(), **machine_card()}
    record["software"] = software(("onnxruntime", "torch"))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

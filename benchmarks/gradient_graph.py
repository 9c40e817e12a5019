"""What an input gradient costs, in forward passes: the exported gradient graph, and PyTorch eager beside it.

    python -m benchmarks.gradient_graph [OUTPUT.json] [--threads 1] [--rounds 15]

For each network, (forward + gradient) / forward at batch 64 on the CPU: ONNX Runtime on the exported graphs, and
PyTorch eager on the same network (BN not folded, contiguous), cross-entropy. Theory says 2: a backward pass to the
input costs as much as a forward pass. Forward and gradient are timed alternately, so many rounds after a warm-up; the
ratio is that of the medians, the spread the quartiles of the paired ratios. One thread is timed by the CPU time of the
process, since other work on the machine changes that little.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from pipeline.models import build_network
from pipeline.runs.evaluate import TorchSession
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends.ort import OrtSession, cores
from runtime.bundle.manifest import InputShape
from runtime.machine.card import machine_card, software

BATCH, WARM_UP = 64, 3
SHAPE = InputShape(channels=3, height=32, width=32)
CASES = [(arch, width) for arch in ("resnet18", "mobilenet_v2") for width in (0.25, 1.0)]


def seconds(action: Callable[[], object]) -> float:
    """Return how long one call takes: of one thread its CPU time."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    action()
    return clock() - began


def ratio(session: Any, x: Any, loss: Any, rounds: int) -> dict[str, Any]:
    """Time forward and forward + gradient alternately."""
    pairs = []
    for _ in range(WARM_UP + rounds):
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


def measure(arch: str, width: float, rounds: int) -> dict[str, Any]:
    """Measure one network behind both sessions."""
    torch.manual_seed(0)
    network = build_network(arch, channels=3, classes=10, width=width).eval()
    forward = to_onnx(network, SHAPE)
    exported = OrtSession(
        to_bytes(forward.model),
        to_bytes(gradient_graph(forward)),
        precision="fp32",
        threads=torch.get_num_threads() % cores(),
    )
    eager = TorchSession(network.requires_grad_(False), sha256="", device=torch.device("cpu"))
    x = np.random.default_rng(0).random((BATCH, 3, 32, 32), np.float32)
    labels = np.arange(BATCH) % 10
    return {
        "network": arch,
        "width": width,
        "onnxruntime": ratio(exported, x, cross_entropy(one_hot(labels, 10)), rounds),
        "torch_eager": ratio(eager, torch.from_numpy(x), cross_entropy(one_hot(torch.from_numpy(labels), 10)), rounds),
    }


def main() -> None:
    """Print a table, and write every figure where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=cores(), choices=(1, cores()))
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = [measure(*case, asked.rounds) for case in CASES]
    print("| network | width | ONNX Runtime | PyTorch eager | eager time / ours |")
    print("|---|---|---|---|---|")
    for row in rows:
        ours, eager = row["onnxruntime"], row["torch_eager"]
        speed = eager["forward_and_gradient_ms"] / ours["forward_and_gradient_ms"]
        figures = [f"{side['ratio']} ({side['quartiles'][0]} to {side['quartiles'][1]})" for side in (ours, eager)]
        print(f"| {row['network']} | {row['width']} | {figures[0]} | {figures[1]} | {speed:.2f} |")
    record = {"batch": BATCH, "n": asked.rounds, "rows": rows, "threads": torch.get_num_threads(), **machine_card()}
    record["software"] = software(("onnxruntime", "torch"))
    if asked.out:
        asked.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

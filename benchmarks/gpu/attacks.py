"""`verify` of a ResNet-18 on this device against the bare cost of its passes, and against two cores of the CPU.

The bare cost is that of a pass of one full batch, from arrays of the host to arrays of the host. Ideal is a run that
costs nothing but the passes that it counts. Two cores are given the ideal: what the same passes cost there by
themselves.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.sheet import Sheet, parser
from benchmarks.gpu.subject import CLASSES, FULL, TINY, Size, bundle, half_stand, images_of, network
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends.table import open_session
from runtime.bundle.opening import open_bundle
from runtime.errors import EdgeproofError, MissingEnvironment, OutOfMemory
from runtime.session import Session

SUITE = "fgsm,pgd,cw"
BATCHES, ROUNDS = (64, 256, 1024), 7
PASSES = {"gradients": 1000, "forwards": 3500}
"""What standard AutoAttack asks of an image on average, roughly: to choose how many images it gets."""
TWO_CORES = """
import json, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from pathlib import Path
from benchmarks.gpu.attacks import bare_costs
print(json.dumps(bare_costs(Path(sys.argv[1]), "fp32", "cpu", (32,), rounds=3)[32]))
"""
"""Prints the bare cost of a pass on two cores, of the bundle in sys.argv."""
COSTS = ("seconds", "forwards", "gradients")
FAILED, JUDGED = 1, (0, 5)
"""Exit codes: of a part, and of `verify` where it came to a verdict."""


def bare(session: Session, images: np.ndarray, labels: np.ndarray, rounds: int) -> dict[str, float]:
    """Return the milliseconds an image of a pass forward and of one for the gradient, medians."""
    loss = cross_entropy(one_hot(labels, CLASSES))
    passes: dict[str, Callable[[], Any]] = {
        "forward": lambda: session.logits(images),
        "gradient": lambda: session.loss_gradient(images, loss),
    }
    costs = {}
    for name, action in passes.items():
        action()
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            action()
            times.append(time.perf_counter() - began)
        costs[name] = 1e3 * statistics.median(times) / len(images)
    return costs


def bare_costs(
    place: Path, precision: str, provider: str, batches: Sequence[int], rounds: int = ROUNDS
) -> dict[int, dict[str, float]]:
    """Return the bare cost by the size of the batch, of those that fit the memory."""
    opened, costs = open_bundle(place), {}
    channels, height, width = opened.manifest.input.channels, opened.manifest.input.height, opened.manifest.input.width
    with open_session(opened, precision=precision, backend="ort", provider=provider) as session:
        for batch in batches:
            x = np.random.default_rng(0).random((batch, channels, height, width), np.float32)
            try:
                costs[batch] = bare(session, x, np.arange(batch) % CLASSES, rounds)
                session.confirm()
            except OutOfMemory:
                break
    return costs


def verify(place: Path, out: Path, *asked: object) -> tuple[int, list[dict[str, Any]]]:
    """Run `verify` without a gate; return its exit code and the rows of its attacks."""
    words = ["-m", "edgeproof", "verify", place, "--no-gate", "--out", out, *asked]
    code = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=False).returncode
    report = out / "report.json"
    rows = json.loads(report.read_bytes())["attacks"] if report.is_file() else []
    return code, [{name: row[name] for name in ("name", "gradient", "attacked", "broken", *COSTS)} for row in rows]


def at_cost(forwards: int, gradients: int, cost: dict[str, float]) -> float:
    """Return the seconds that so many passes cost by themselves."""
    return (forwards * cost["forward"] + gradients * cost["gradient"]) / 1e3


def beside(rows: list[dict[str, Any]], cost: dict[str, float], cascade: bool = False) -> dict[str, float]:
    """Return what the rows of a run took in all, what its passes cost by themselves, and the share of it."""
    counted = rows[-1:] if cascade else rows  # the last row of a cascade sums up the others
    seconds, forwards, gradients = (sum(row[name] for row in counted) for name in COSTS)
    ideal = at_cost(forwards, gradients, cost)
    return {
        "seconds": round(seconds, 3),
        "forwards": forwards,
        "gradients": gradients,
        "ideal_seconds": round(ideal, 3),
        "of_ideal": round(ideal / seconds, 3) if seconds else 0.0,
    }


def affordable(seconds: float, cost: dict[str, float], most: int) -> int:
    """Return how many images AutoAttack gets, if it runs at half of the ideal."""
    an_image = 2 * (PASSES["gradients"] * cost["gradient"] + PASSES["forwards"] * cost["forward"]) / 1e3
    return max(2, min(most, int(seconds / an_image)))


def attacked(
    sheet: Sheet, place: Path, precision: str, provider: str, size: Size, batches: Sequence[int], work: Path
) -> dict[str, float] | None:
    """Attack one precision on this device, and note it; return its bare costs at the best batch, None if it fails."""
    try:
        costs = bare_costs(place, precision, provider, batches)
    except EdgeproofError as error:
        sheet.note(**{precision: {"error": error.message, "exit_code": stopped(provider)}})
        return None
    batch = min(costs, key=lambda each: costs[each]["gradient"])
    asked = ("--precision", precision, "--provider", provider, "--batch", batch)
    code, rows = verify(place, work / precision, *asked, "--attacks", SUITE, "--n", size.images)
    own = [row for row in rows if row["gradient"] != "parent"]  # its parent's cost otherwise
    found = {"exit_code": code, "bare_ms": costs, "batch": batch, "rows": rows, **beside(own, costs[batch])}
    sheet.note(**{precision: found})
    return costs[batch]


def main() -> int:
    """Attack fp32 by the suite and by AutoAttack, the same on two cores, then fp16 and int8 while there is time."""
    asked = parser(__doc__).parse_args()
    sheet, size = Sheet(asked.out, asked.seconds), TINY if asked.tiny else FULL
    provider, batches = ("cuda", BATCHES) if asked.device == "cuda" else ("cpu", (8, 16))
    device = torch.device(asked.device)
    made = network(size, device)
    images = images_of(made, size, size.images, device)
    eps = half_stand(made, images.first(size.sample), device)
    sheet.note(network="resnet18", width=size.width, n=size.images, eps=eps, attacks=SUITE)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        bundle(made, images, size, ("fp32",), eps, work / "bundle")
        cost = attacked(sheet, work / "bundle", "fp32", provider, size, batches, work)
        if cost is None:
            return worst(sheet.figures)
        two_cores(sheet, work / "bundle")
        if sheet.left > 10:
            batch = sheet.figures["fp32"]["batch"]
            n = affordable(sheet.left / 2, cost, 2 if asked.tiny else size.images)
            words = ("--precision", "fp32", "--provider", provider, "--batch", batch, "--attacks", "aa", "--n", n)
            code, rows = verify(work / "bundle", work / "aa", *words)
            sheet.note(autoattack={"exit_code": code, "n": n, "rows": rows, **beside(rows, cost, cascade=True)})
        if sheet.left > 20 and not asked.tiny:
            bundle(made, images, size, ("fp32", "fp16", "int8"), eps, work / "all")
            for precision in ("fp16", "int8"):
                attacked(sheet, work / "all", precision, provider, size, batches, work)
        if sheet.left > 20:
            arithmetic(sheet, work / "bundle", provider, sheet.figures["fp32"]["batch"], size)
    return worst(sheet.figures)


def stopped(provider: str) -> int:
    """Return the exit code of a session that an error ended: 4 where ONNX Runtime lacks the provider, else 1.

    A provider that is there and refuses our graphs is what this part is to find.
    """
    there = f"{provider.upper()}ExecutionProvider" in onnxruntime.get_available_providers()
    return FAILED if there else MissingEnvironment.exit_code


def worst(figures: dict[str, Any]) -> int:
    """Return the first exit code of a run that ended neither with a verdict n; 0 if none did."""
    codes = (run["exit_code"] for run in figures.values() if isinstance(run, dict) and "exit_code" in run)
    return next((code for code in codes if code not in JUDGED), 0)


def two_cores(sheet: Sheet, place: Path) -> None:
    """Note what the suite's passes cost on two cores by themselves, and how many times longer that is."""
    asked = subprocess.run([sys.executable, "-c", TWO_CORES, place], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if asked.returncode:
        sheet.note(two_cores={"exit_code": asked.returncode})
        return
    here, cost = sheet.figures["fp32"], json.loads(asked.stdout)
    there = at_cost(here["forwards"], here["gradients"], cost)
    slower = round(there / here["seconds"], 2) if here["seconds"] else None
    sheet.note(two_cores={"bare_ms": cost, "seconds": round(there, 3), "times_slower": slower})


def arithmetic(sheet: Sheet, place: Path, provider: str, batch: int, size: Size) -> None:
    """Note what the suite costs with the arithmetic of attacks in other libraries, in a process of its own."""
    words = ["-m", "benchmarks.gpu.arithmetic", place, "--provider", provider, "--batch", batch]
    command = [sys.executable, *map(str, words), "--n", str(min(512, size.images))]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False, timeout=sheet.left)
    except subprocess.TimeoutExpired:
        sheet.note(arithmetic={"exit_code": 0, "error": "no time left"})
        return
    sheet.note(arithmetic={"exit_code": done.returncode, **(json.loads(done.stdout) if done.returncode == 0 else {})})


if __name__ == "__main__":
    sys.exit(main())

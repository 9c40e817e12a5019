"""How the cost of the attacks grows: in the number of images, and in the points that still survive.

    python -m benchmarks.autoattack_cost RUN [OUTPUT.json [PLOT.svg]]

RUN is a finished training run. On its exported graph, one thread, CPU seconds of the process, since other work on the
machine changes those little: (1) a cascade of standard AutoAttack's four attacks with fewer steps, on the first n
test images for several n and eps; (2) one query of Square after another on many images at a large eps, against how
many points survived at each, the medians of BIN queries.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from pipeline.data.sets import load_dataset
from pipeline.runs.directory import open_run
from runtime.attacks import ATTACKS, stages
from runtime.attacks.losses import one_hot
from runtime.attacks.oracle import Oracle, Points, predictions
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import InputShape
from runtime.machine.card import machine_card, software

SIZES = (8, 16, 32, 64, 96)
RADII = (4, 8, 16)
"""In 1/255."""
FEWER = {"steps": 10, "targets": 2, "queries": 40}
LARGE, MANY, QUERIES, BIN = 32, 160, 400, 8
CLASSES = 10


def correct_points(session: OrtSession, n: int) -> Points:
    """Return those of the first n test images that are classified rightly."""
    test = load_dataset("fashion-mini", None).test
    x, label = test.as_float(np.arange(n)), test.labels[:n].astype(np.int64)
    index = np.flatnonzero(predictions(session.logits(x)) == label)
    return Points(x[index], one_hot(label[index], CLASSES), label[index], index, np.arange(len(index)))


def cascade(session: OrtSession, n: int, eps: float) -> dict[str, Any]:
    """Return what the shortened cascade costs on n images."""
    points, oracle, began = correct_points(session, n), Oracle(session, 64), time.process_time()
    for attack in stages("aa", CLASSES):
        shorter = {key: min(value, FEWER.get(key, value)) for key, value in attack.defaults.items()}
        found = replace(attack, defaults=shorter).run(oracle, points, eps, 0)
        points = points.rows(~found.broken)
        points = replace(points, row=np.arange(len(points)))
    seconds = round(time.process_time() - began, 3)
    passes = {"forwards": oracle.forwards, "gradients": oracle.gradients}
    return {"n": n, "eps_255": round(255 * eps), "cpu_seconds": seconds, **passes, "standing": len(points)}


class Ticking(Oracle):
    """Notes the CPU time at each query and how many points it asked about."""

    def __init__(self, session: OrtSession) -> None:
        super().__init__(session, 64)
        self.ticks: list[tuple[int, float]] = []

    def logits(self, points: Points, x: Any) -> Any:
        """Answer, and note when it was asked."""
        self.ticks.append((len(points), time.process_time()))
        return super().logits(points, x)


def queries(session: OrtSession) -> list[dict[str, float]]:
    """Return the surviving points and the CPU milliseconds from one query of Square to the next, by BIN queries."""
    oracle, square = Ticking(session), ATTACKS["square"]
    replace(square, defaults={**square.defaults, "queries": QUERIES}).run(
        oracle, correct_points(session, MANY), LARGE / 255, 0
    )
    standing = np.array([count for count, _ in oracle.ticks[:-1]])
    milliseconds = 1e3 * np.diff([tick for _, tick in oracle.ticks])
    cut = len(standing) // BIN * BIN
    medians = [np.median(array[:cut].reshape(-1, BIN), axis=1) for array in (standing, milliseconds)]
    return [{"standing": float(s), "cpu_ms": round(float(ms), 3)} for s, ms in zip(*medians, strict=True)]


def draw(rows: list[dict[str, Any]], points: list[dict[str, float]]) -> Figure:
    """Draw both, each with its line through the origin."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for radius in RADII:
        own = [row for row in rows if row["eps_255"] == radius]
        n, seconds = (np.array([row[key] for row in own]) for key in ("n", "cpu_seconds"))
        (line,) = left.plot(n, seconds, "o", label=f"eps {radius}/255, {own[-1]['standing']} of {n[-1]} survive")
        left.plot([0, n[-1]], [0, (n * seconds).sum() / (n * n).sum() * n[-1]], color=line.get_color(), linewidth=1)
    left.set_xlabel("images")
    left.set_ylabel("CPU seconds of the cascade")
    left.legend(frameon=False)
    standing, ms = (np.array([point[key] for point in points]) for key in ("standing", "cpu_ms"))
    right.plot(standing, ms, ".")
    right.plot([0, standing.max()], [0, (standing * ms).sum() / (standing**2).sum() * standing.max()], linewidth=1)
    right.set_xlabel("surviving points")
    right.set_ylabel("CPU ms of one query of Square")
    for axes in (left, right):
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Measure, print, and write the figures and the plot where files are named."""
    network = open_run(Path(sys.argv[1]), "best").network
    forward = to_onnx(network, InputShape(channels=1, height=28, width=28))
    session = OrtSession(to_bytes(forward.model), to_bytes(gradient_graph(forward)), precision="fp32", threads=1)
    cascade(session, SIZES[0], RADII[0] / 255)
    rows = [cascade(session, n, radius / 255) for radius in RADII for n in SIZES]
    points = queries(session)
    for row in rows:
        print(row)
    record = {"cascade": rows, "fewer": FEWER, "queries": points, **machine_card()}
    record["software"] = software(("onnxruntime", "numpy"))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(record, indent=2) + "\n")
    if len(sys.argv) > 3:
        draw(rows, points).savefig(sys.argv[3], metadata={"Date": None})


if __name__ == "__main__":
    main()

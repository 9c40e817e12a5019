"""Standard AutoAttack on an exported graph, and torchattacks' on the same network in PyTorch eager: time and outcome.

    python -m benchmarks.autoattack RUN [--n 128] [--threads N] [--ours-only] [--out FILE.json]

RUN is a finished training run. Both attack the first n test images, each attack of the cascade on what the earlier
ones of its own side left, by turns: ours, theirs, ours again. Theirs have the reference's settings (APGD-CE and
APGD-T 100 steps, FAB-T 9 targets of 100 steps, Square 5,000 queries on the unscaled schedule) and the whole set as
one batch, as the reference does up to 250 images. A robust image is one that the network classifies rightly at the
point that the attack returned; one beyond eps counts for neither.

Beside wall time it prints the CPU time of the process, and the limit: what the images passed forward and backward cost
by themselves, from the bare cost of a pass of 64 images. On a machine that others use as well wall time says nothing,
and several threads burn CPU time while they wait for each other: with `--threads 1` the CPU times can be compared.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from pipeline.data.sets import load_dataset
from pipeline.runs.directory import open_run
from runtime.attacks import Attack, stages
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.attacks.oracle import Oracle, Points, predictions
from runtime.backends.ort import OrtSession, cores
from runtime.bundle.manifest import InputShape
from runtime.images.image_set import ImageSet
from runtime.machine.card import machine_card, software

BARE, BARE_ROUNDS = 64, 7
EPS = 8 / 255
STEPS = {"steps": 100, "seed": 0}


@dataclass
class Clock:
    """Wall and CPU seconds of what is run under it."""

    wall: float = 0.0
    cpu: float = 0.0

    def run(self, action: Callable[[], Any]) -> Any:
        """Run and time one action."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = action()
        self.wall, self.cpu = self.wall + time.perf_counter() - wall, self.cpu + time.process_time() - cpu
        return result


class Watched:
    """A session whose own time is measured, apart from the attack's."""

    def __init__(self, session: OrtSession) -> None:
        self.session, self.clock = session, Clock()

    def logits(self, x: Any) -> Any:
        """Return the session's logits."""
        return self.clock.run(lambda: self.session.logits(x))

    def loss_gradient(self, x: Any, loss: Any) -> Any:
        """Return the session's gradient."""
        return self.clock.run(lambda: self.session.loss_gradient(x, loss))

    def card(self) -> Any:
        """Return the session's card."""
        return self.session.card()


THEIRS: dict[str, Callable[[nn.Module, int], Any]] = {
    "apgd-ce": lambda network, classes: torchattacks.APGD(network, eps=EPS, loss="ce", **STEPS),
    "apgd-t": lambda network, classes: torchattacks.APGDT(network, eps=EPS, n_classes=classes, **STEPS),
    "fab-t": lambda network, classes: torchattacks.FAB(
        network, eps=EPS, multi_targeted=True, n_classes=classes, **STEPS
    ),
    "square": lambda network, classes: torchattacks.Square(
        network, eps=EPS, n_queries=5000, resc_schedule=False, seed=0
    ),
}


def bare(forward: Callable[[], Any], gradient: Callable[[], Any]) -> dict[str, float]:
    """Return the CPU or, with threads, wall milliseconds an image of a pass forward and of one for the gradient."""
    costs: dict[str, list[float]] = {"forward": [], "gradient": []}
    for _ in range(BARE_ROUNDS):
        for name, action in (("forward", forward), ("gradient", gradient)):
            clock = Clock()
            clock.run(action)
            costs[name].append(1e3 * (clock.cpu if torch.get_num_threads() == 1 else clock.wall) / BARE)
    return {name: round(statistics.median(values), 4) for name, values in costs.items()}


def our_bare(session: OrtSession, images: Any, labels: Any, classes: int) -> dict[str, float]:
    """Return the bare costs of the exported graphs."""
    loss = cross_entropy(one_hot(labels, classes))
    return bare(lambda: session.logits(images), lambda: session.loss_gradient(images, loss))


def their_bare(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the bare costs of the network in eager mode."""

    def forward() -> Tensor:
        with torch.no_grad():
            return network(images)

    def gradient() -> tuple[Tensor, ...]:
        x = images.clone().requires_grad_()
        return torch.autograd.grad(nn.functional.cross_entropy(network(x), labels, reduction="sum"), x)

    return bare(forward, gradient)


class Ours:
    """The cascade on the exported graph, one attack at a time."""

    def __init__(self, session: OrtSession, images: ImageSet, classes: int) -> None:
        self.session, index = Watched(session), np.arange(len(images))
        label = one_hot(images.labels, classes)
        self.points = Points(images.as_float(slice(None)), label, images.labels, index, index)
        self.standing = predictions(session.logits(self.points.x)) == images.labels

    def attack(self, attack: Attack) -> dict[str, Any]:
        """Run one attack on the images that survived so far."""
        self.session.clock, clock, oracle = Clock(), Clock(), Oracle(self.session, BARE)
        points = self.points.rows(self.standing)
        points = replace(points, row=np.arange(len(points)))
        found = clock.run(lambda: attack.run(oracle, points, EPS, 0))
        self.standing[points.index] = ~found.broken
        return {
            "seconds": round(clock.wall, 2),
            "cpu_seconds": round(clock.cpu, 2),
            "in_session": round(self.session.clock.wall, 2),
            "forwards": oracle.forwards,
            "gradients": oracle.gradients,
            "standing": int(self.standing.sum()),
        }


class Theirs:
    """The same on the network."""

    def __init__(self, network: nn.Module, images: ImageSet, classes: int) -> None:
        self.network, self.classes = network, classes
        self.x, self.y = torch.from_numpy(images.as_float(slice(None))), torch.from_numpy(images.labels)
        self.passes = {"forwards": 0, "gradients": 0}
        with torch.no_grad():
            self.standing = network(self.x).argmax(dim=1) == self.y
        network.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.passes["gradients" if inputs[0].requires_grad else "forwards"] += len(inputs[0])

    def attack(self, name: str) -> dict[str, Any]:
        """Run one attack on the images that survived so far."""
        clock, x, y = Clock(), self.x[self.standing], self.y[self.standing]
        self.passes = {"forwards": 0, "gradients": 0}
        with torch.random.fork_rng():
            found = clock.run(lambda: THEIRS[name](self.network, self.classes)(x, y)).detach()
        passes = self.passes
        with torch.no_grad():
            inside = (found - x).abs().amax(dim=(1, 2, 3)) <= EPS + 1e-6
            self.standing[self.standing.clone()] = ~((self.network(found).argmax(dim=1) != y) & inside)
        left = int(self.standing.sum())
        return {"seconds": round(clock.wall, 2), "cpu_seconds": round(clock.cpu, 2), **passes, "standing": left}


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the costs of the attacks; the images that survive are those that the last one left."""
    sums = {key: round(sum(row[key] for row in rows), 2) for key in rows[0] if key != "standing"}
    return {**sums, "standing": rows[-1]["standing"]}


def limit(row: dict[str, Any], cost: dict[str, float]) -> float:
    """Return the seconds that the passes of a row cost by themselves."""
    return round((row["forwards"] * cost["forward"] + row["gradients"] * cost["gradient"]) / 1e3, 2)


def measure(run: Path, n: int, threads: int, ours_only: bool) -> dict[str, Any]:
    """Run both sides, attack by attack."""
    opened, data = open_run(run, "best"), load_dataset("fashion-mini", None)
    classes = len(data.classes)
    chosen = np.arange(n)
    images = ImageSet("test", data.test.as_float(chosen), data.test.labels[chosen].astype(np.int64), chosen)
    channels, height, width = images.images.shape[1:]
    network = opened.network.requires_grad_(False)
    forward = to_onnx(network, InputShape(channels=channels, height=height, width=width))
    session = OrtSession(
        to_bytes(forward.model), to_bytes(gradient_graph(forward)), precision="fp32", threads=threads % cores()
    )
    torch.set_num_threads(threads)
    first = first_images(images, BARE)
    costs = {"ours": our_bare(session, *first, classes)}
    costs["theirs"] = their_bare(network, *(torch.from_numpy(array) for array in first))
    once, again, theirs = (
        Ours(session, images, classes),
        Ours(session, images, classes),
        Theirs(network, images, classes),
    )
    clean = int(once.standing.sum())
    record: dict[str, Any] = {"ours": [], "again": [], "theirs": []}
    for attack in stages("aa", classes):
        record["ours"].append(once.attack(attack))
        if not ours_only:
            record["theirs"].append(theirs.attack(attack.name))
            record["again"].append(again.attack(attack))
        print(attack.name, {side: rows[-1] for side, rows in record.items() if rows}, flush=True)
    sides = {side: [*rows, total(rows)] for side, rows in record.items() if rows}
    for side, rows in sides.items():
        for row in rows:
            row["limit"] = limit(row, costs["theirs" if side == "theirs" else "ours"])
    return {
        "checkpoint": {"sha256": opened.checkpoint_sha256, "arch": opened.card.arch, "width": opened.card.width},
        "n": n,
        "clean": clean,
        "eps": EPS,
        "attacks": [attack.name for attack in stages("aa", classes)],
        "bare_ms": costs,
        **sides,
        "threads": threads,
        **machine_card(),
        "software": software(("onnxruntime", "torch", "torchattacks")),
    }


def first_images(images: ImageSet, count: int) -> tuple[Any, Any]:
    """Return `count` images and labels, the first ones repeated where there are fewer."""
    rows = np.arange(count) % len(images)
    return images.as_float(rows), images.labels[rows]


def main() -> None:
    """Print a table, and write every figure where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=128)
    parser.add_argument("--threads", type=int, default=cores(), choices=(1, cores()))
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    record = measure(asked.run, asked.n, asked.threads, asked.ours_only)
    print(f"{record['clean']} of {record['n']} right; bare cost of an image, ms: {record['bare_ms']}")
    seconds = "cpu_seconds" if record["threads"] == 1 else "seconds"
    print("| attack | ours, s | again | limit | theirs, s | limit | times faster | survive: ours | theirs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for place, name in enumerate([*record["attacks"], "all"]):
        ours = record["ours"][place]
        again, theirs = (record[side][place] if side in record else ours for side in ("again", "theirs"))
        mean = (ours[seconds] + again[seconds]) / 2
        figures = [ours[seconds], again[seconds], ours["limit"], theirs[seconds], theirs["limit"]]
        words = [*map(str, figures), f"{theirs[seconds] / mean:.2f}", str(ours["standing"]), str(theirs["standing"])]
        print(f"| {name} | {' | '.join(words)} |")
    if asked.out:
        asked.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""AdaAD's training step against a plain eager one, and the images per second of all eight methods.

    python -m benchmarks.distill_step [OUTPUT.json]

The plain step is written as the paper states it: fp32, PyTorch eager, networks as they are built (batch normalisation
not folded, contiguous), student and teacher in eval mode for ten search steps, then S(x'), T(x'), S(x) and T(x), the
loss, its backward pass and SGD. Ours is `Trainer.step`, in fp32 and, where the machine has instructions for it, with
the search in bf16, and all in bf16.
Student and teacher are of one architecture; images 32 x 32 x 3. All are timed alternately, `ROUNDS` times after a
warm-up; a speed-up is the ratio of medians.

`peak` is the share of the machine's own measured best that our step reaches: the multiply-adds of the plain step per
second, against those of one large convolution's forward pass at the same precision; of a step that searches in another,
the time that its two parts would take at the best of each, against the time it takes.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.methods import METHODS
from pipeline.methods.search import Precision
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.training.precision import arithmetic
from pipeline.training.trainer import Trainer
from runtime.machine.card import machine_card, software

ROUNDS, WARM_UP = 5, 1
SETTINGS: dict[str, tuple[Precision, Precision]] = {
    "fp32": ("fp32", "fp32"),
    "bf16 search": ("fp32", "bf16"),
    "bf16": ("bf16", "bf16"),
}
"""By name: the precision of the outer step and that of the search."""
EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
SEARCH, OUTER = 4 * STEPS, 6
"""Passes of a network that a step takes."""
CASES = (("resnet18", 1.0, 32), ("resnet18", 0.25, 128), ("mobilenet_v2", 1.0, 32), ("mobilenet_v2", 0.25, 128))
"""Architecture, width and batch."""
CPU = torch.device("cpu")


class PlainStep:
    """One step of AdaAD as the paper states it (Huang et al. 2023, equations 5 and 6; start and alpha of the code)."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student, self.teacher = student, teacher.eval().requires_grad_(False)
        self.optimiser = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def __call__(self, x: Tensor) -> None:
        """Search, and lower the disagreement there."""
        self.student.eval()
        points = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
        for _ in range(STEPS):
            points.requires_grad_()
            (gradient,) = torch.autograd.grad(disagreement(self.student(points), self.teacher(points)), points)
            points = points.detach() + STEP * gradient.sign()
            points = torch.min(torch.max(points, x - EPS), x + EPS).clamp(0, 1)
        self.student.train()
        self.optimiser.zero_grad()
        aligned = disagreement(self.student(points), self.teacher(points))
        loss = 1.0 * aligned + 0.0 * disagreement(self.student(x), self.teacher(x))
        loss.backward()
        self.optimiser.step()


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(T || S), as PyTorch's KLDivLoss reduces it."""
    return F.kl_div(F.log_softmax(student, dim=1), F.softmax(teacher, dim=1), reduction="batchmean")


def networks(arch: str, width: float) -> tuple[nn.Module, nn.Module]:
    """Return a student and a teacher of one architecture."""
    torch.manual_seed(0)
    student, teacher = (build_network(arch, channels=3, classes=10, width=width) for _ in range(2))
    return student, teacher.eval()


def our_step(arch: str, width: float, method: str, setting: str) -> Callable[[Tensor], object]:
    """Return `Trainer.step` of a method as a function of the images."""
    overrides = [f"student.arch={arch}", f"student.width={width}", f"method.name={method}", "train.epochs=200"]
    overrides += [f"search.steps={STEPS}", "search.step=2/255", "method.adaad.clean_statistics=true"]
    precision, search = SETTINGS[setting]
    overrides += [f"search.precision={search}"]
    student, teacher = networks(arch, width)
    student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = Trainer(load_recipe("fashion-mini", overrides), student, frozen(teacher), classes=10, precision=precision)

    def step(x: Tensor) -> object:
        labels = torch.arange(len(x)) % 10
        return trainer.step(x, labels, number=100 * 100, steps_per_epoch=100, steps=200 * 100)

    return step


def medians(actions: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Time the actions in turn, again and again: median and quartiles of each, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(WARM_UP + rounds):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - began)
    figures = {}
    for name, all_of in times.items():
        low, middle, high = statistics.quantiles(all_of[WARM_UP:], n=4)
        figures[name] = {"median": middle, "low": low, "high": high}
    return figures


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds of the plain step, student and teacher alike, from those of a forward pass.

    A backward pass to the input costs as much as a forward pass, one to the weights as much again. A search step takes
    both networks forward and back; the outer step S(x') forward and back twice, T(x'), S(x) and T(x) forward.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x)
    return (SEARCH + OUTER) * int(counter.get_total_flops()) // 2


def peak(precision: Precision) -> float:
    """Return multiply-adds per second of a large convolution's forward pass: the best of ten."""
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(32, 256, 32, 32).to(memory_format=torch.channels_last)
    best = math.inf
    with torch.no_grad(), arithmetic(precision, CPU):
        for _ in range(10):
            began = time.perf_counter()
            layer(x)
            best = min(best, time.perf_counter() - began)
    return 32 * 32 * 32 * 256 * 256 * 9 / best


def measure(arch: str, width: float, batch: int, peaks: dict[Precision, float]) -> dict[str, Any]:
    """Measure one network: the plain step and ours in every precision, in turn."""
    x = torch.rand(batch, 3, 32, 32)
    plain = PlainStep(*networks(arch, width))
    ours = {name: our_step(arch, width, "adaad", name) for name in settings(peaks)}
    times = medians({"plain": lambda: plain(x), **{name: lambda s=step: s(x) for name, step in ours.items()}})
    work = multiply_adds(plain.student, x)
    return {
        "network": arch,
        "width": width,
        "batch": batch,
        "seconds": times,
        "multiply_adds": work,
        "speed_up": {name: times["plain"]["median"] / times[name]["median"] for name in ours},
        "of_peak": {name: work / times[name]["median"] * best_time(SETTINGS[name], peaks) for name in ours},
    }


def settings(peaks: dict[Precision, float]) -> list[str]:
    """Return the settings that the machine has the precisions for."""
    return [name for name, precisions in SETTINGS.items() if set(precisions) <= set(peaks)]


def best_time(precisions: tuple[Precision, Precision], peaks: dict[Precision, float]) -> float:
    """Return the seconds that a multiply-add of a step would take at the peaks of its two parts."""
    outer, search = precisions
    return (OUTER / peaks[outer] + SEARCH / peaks[search]) / (OUTER + SEARCH)


def rates(setting: str) -> dict[str, float]:
    """Return the images per second of every method, ResNet-18 at a quarter width, batch 128."""
    x = torch.rand(128, 3, 32, 32)
    steps = {method: our_step("resnet18", 0.25, method, setting) for method in METHODS}
    times = medians({method: lambda s=step: s(x) for method, step in steps.items()}, rounds=3)
    return {method: 128 / figures["median"] for method, figures in times.items()}


def main() -> None:
    """Print the tables, and write every figure where a file is named."""
    precisions: list[Precision] = ["fp32", *(["bf16"] if torch.cpu._is_avx512_bf16_supported() else [])]  # type: ignore[list-item]
    peaks = {precision: peak(precision) for precision in precisions}
    names = settings(peaks)
    rows = [measure(*case, peaks) for case in CASES]
    titles = " | ".join(f"{name} | of peak" for name in names)
    print(f"| network | width | plain, images/s | {titles} |\n|{'---|' * (3 + 2 * len(names))}")
    for row in rows:
        plain = row["batch"] / row["seconds"]["plain"]["median"]
        own = " | ".join(f"{row['speed_up'][name]:.2f}x | {row['of_peak'][name]:.0%}" for name in names)
        print(f"| {row['network']} | {row['width']} | {plain:.1f} | {own} |", flush=True)
    means = {name: statistics.geometric_mean(row["speed_up"][name] for row in rows) for name in names}
    print("geometric mean:", ", ".join(f"{name} {mean:.2f}x" for name, mean in means.items()))
    methods = {name: rates(name) for name in names}
    print(f"| method | {' | '.join(f'{name}, images/s' for name in names)} |\n|{'---|' * (1 + len(names))}")
    for method in METHODS:
        print(f"| {method} | {' | '.join(f'{methods[name][method]:.0f}' for name in names)} |")
    record = {"n": ROUNDS, "rows": rows, "geometric_mean": means, "images_per_second": methods, "peak": peaks}
    record |= {"threads": torch.get_num_threads(), **machine_card(), "software": software(("torch",))}
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

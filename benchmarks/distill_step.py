"""The training step on a CPU or a GPU: against a plain eager one, as a share of the machine's peak, and in images/s.

    python -m benchmarks.distill_step [OUTPUT.json] [--device cuda] [--precision bf16 ...] [--seconds 120] [--eager]

The plain step is AdaAD's as the paper states it: PyTorch eager in its defaults (fp32; on CUDA TF32 convolutions),
networks as they are built (batch normalisation not folded, contiguous), student and teacher in eval mode for ten search
steps, then S(x'), T(x'), S(x) and T(x), the loss, its backward pass and SGD. Ours is `Trainer.step` in each precision
that the device has, on CUDA captured (`--eager`: not). Images are 32 x 32 x 3. All of a case are timed alternately,
`ROUNDS` times after a warm-up; a speed-up is the ratio of medians.

`peak` is the share of the device's own measured best that our step reaches: the multiply-adds of a step per second,
against those of one large matrix product in the same precision; of a step that searches in another, the time that its
two parts would take at the best of each, against the time it takes.

With `--seconds` no case begins after so many, and none takes further rounds: what was left out is not in the output.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
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
from pipeline.runs.evaluate import device_name
from pipeline.training.devices import training_device
from pipeline.training.graphs import recorder_of
from pipeline.training.precision import AMPERE, arithmetic
from pipeline.training.trainer import Trainer
from runtime.machine.card import machine_card, software

ROUNDS, WARM_UP = 5, 3
"""The first step of ours warms up and the second is captured."""
AT_ONCE = {"cpu": 1, "cuda": 5}
"""By device: so many steps are launched before their end is waited for, as a run does."""
SETTINGS: dict[str, tuple[Precision, Precision]] = {
    "fp32": ("fp32", "fp32"),
    "tf32": ("tf32", "tf32"),
    "bf16 search": ("fp32", "bf16"),
    "tf32, bf16 search": ("tf32", "bf16"),
    "bf16": ("bf16", "bf16"),
}
"""By name: the precision of the outer step and that of the search."""
EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
SIDES = {"cpu": 2048, "cuda": 8192}
"""By device: of the matrices whose product is the peak."""
Steps = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """What is timed: a method, its networks as (architecture, width, depth), and the batch."""

    method: str
    student: tuple[str, float, int | None]
    teacher: tuple[str, float, int | None]
    batch: int

    def __str__(self) -> str:
        """Return a row's title."""
        names = [f"{arch} {width:g}" for arch, width, _ in (self.student, self.teacher)]
        return f"{self.method} | {names[0]} | {names[1] if METHODS[self.method].needs_teacher else 'none'}"


RESNET, MOBILENET, WIDE = ("resnet18", 1.0, None), ("mobilenet_v2", 1.0, None), ("wideresnet", 10.0, 34)
CASES = {
    "cpu": [
        Case("adaad", network, network, batch)
        for arch in ("resnet18", "mobilenet_v2")
        for network, batch in (((arch, 1.0, None), 32), ((arch, 0.25, None), 128))
    ],
    "cuda": [
        Case("adaad", RESNET, RESNET, 128),
        Case("pgd-at", RESNET, RESNET, 512),
        Case("adaad", RESNET, WIDE, 128),
        Case("adaad", MOBILENET, RESNET, 128),
        Case("adaad", MOBILENET, WIDE, 128),
    ],
}
"""By device, in the order of their worth."""


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


def networks(case: Case) -> tuple[nn.Module, nn.Module]:
    """Return the student and the teacher of a case, on the CPU."""
    torch.manual_seed(0)
    student, teacher = (
        build_network(arch, channels=3, classes=10, width=width, depth=depth)
        for arch, width, depth in (case.student, case.teacher)
    )
    return student, teacher.eval()


def our_step(case: Case, setting: str, device: torch.device, *, eager: bool) -> Callable[[Tensor], object]:
    """Return `Trainer.step` of a case as a function of the images."""
    precision, search = SETTINGS[setting]
    arch, width, _ = case.student
    overrides = [f"student.arch={arch}", f"student.width={width}", f"method.name={case.method}", "train.epochs=200"]
    overrides += [f"search.steps={STEPS}", "search.step=2/255", "method.adaad.clean_statistics=true"]
    overrides += [f"search.precision={search}", f"train.batch={case.batch}"]
    student, teacher = networks(case)
    trainer = Trainer(
        load_recipe("fashion-mini", overrides),
        student.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        frozen(teacher).to(device) if METHODS[case.method].needs_teacher else None,
        classes=10,
        precision=precision,
        recorder=None if eager else recorder_of(device),
    )
    labels = torch.arange(case.batch, device=device) % 10
    return lambda x: trainer.step(x, labels, number=100 * 100, steps_per_epoch=100, steps=200 * 100)


def medians(steps: Steps, device: torch.device, end: float, rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Time the steps in turn, again and again until `end`: median and quartiles of each, in seconds a step."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    count = AT_ONCE[device.type]
    for number in range(WARM_UP + rounds):
        if number > WARM_UP + 1 and time.monotonic() > end:  # two are the least that have quartiles
            break
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(count):
                step()
            wait(device)
            times[name].append((time.perf_counter() - began) / count)
    figures = {}
    for name, all_of in times.items():
        low, middle, high = statistics.quantiles(all_of[WARM_UP:], n=4)
        figures[name] = {"median": middle, "low": low, "high": high}
    return figures


def wait(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def multiply_adds(case: Case) -> tuple[int, int]:
    """Return the multiply-adds of the search and of the outer step, from those of forward passes.

    A backward pass to the input costs as much as a forward pass, one to the weights as much again. A search step takes
    its networks forward and back; the outer step S(x') forward and back twice, and in AdaAD's T(x'), S(x) and T(x)
    forward.
    """
    forward = []
    for network in networks(case):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.rand(1, 3, 32, 32))
        forward.append(case.batch * int(counter.get_total_flops()) // 2)
    student, teacher = forward
    if not METHODS[case.method].needs_teacher:
        return 2 * STEPS * student, 3 * student
    return 2 * STEPS * (student + teacher), 4 * student + 2 * teacher


def peak(precision: Precision, device: torch.device) -> float:
    """Return multiply-adds per second of a large product of matrices: the best of ten."""
    side, best = SIDES[device.type], math.inf
    one, other = (torch.randn(side, side, device=device) for _ in range(2))
    with torch.no_grad(), arithmetic(precision, device):
        if precision == "bf16":
            one, other = one.bfloat16(), other.bfloat16()
        for _ in range(10):
            wait(device)
            began = time.perf_counter()
            one @ other
            wait(device)
            best = min(best, time.perf_counter() - began)
    return side**3 / best


def measure(
    case: Case, peaks: dict[Precision, float], names: list[str], device: torch.device, end: float, eager: bool
) -> dict[str, Any]:
    """Measure one case: the plain step, where it is AdaAD's, and ours in every setting, in turn."""
    x = torch.rand(case.batch, 3, 32, 32, device=device)
    ours = x.to(memory_format=torch.channels_last)
    steps: Steps = {}
    if case.method == "adaad":
        steps["plain"] = partial(PlainStep(*(network.to(device) for network in networks(case))), x)
    for name in names:
        steps[name] = partial(our_step(case, name, device, eager=eager), ours)
    times = medians(steps, device, end)
    search, outer = multiply_adds(case)
    seconds = {name: figures["median"] for name, figures in times.items()}
    best = {name: outer / peaks[SETTINGS[name][0]] + search / peaks[SETTINGS[name][1]] for name in names}
    return {
        **asdict(case),
        "seconds": times,
        "multiply_adds": {"search": search, "outer": outer},
        "images_per_second": {name: case.batch / median for name, median in seconds.items()},
        "speed_up": {name: seconds["plain"] / seconds[name] for name in names if "plain" in seconds},
        "of_peak": {name: best[name] / seconds[name] for name in names},
    }


def available(device: torch.device) -> list[Precision]:
    """Return the precisions that a device has instructions for."""
    if device.type == "cuda":
        new = torch.cuda.get_device_capability(device) >= AMPERE
        return ["fp32", "tf32", "bf16"] if new else ["fp32"]
    return ["fp32", "bf16"] if torch.cpu._is_avx512_bf16_supported() else ["fp32"]


def rates(setting: str, device: torch.device, end: float, *, eager: bool) -> dict[str, float]:
    """Return the images per second of every method, ResNet-18 at a quarter width, batch 128."""
    x = torch.rand(128, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    small = ("resnet18", 0.25, None)
    steps = {name: our_step(Case(name, small, small, 128), setting, device, eager=eager) for name in METHODS}
    times = medians({name: partial(step, x) for name, step in steps.items()}, device, end, rounds=3)
    return {name: 128 / figures["median"] for name, figures in times.items()}


def asked() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", nargs="?", type=Path, help="a JSON file for every figure")
    parser.add_argument("--device", type=torch.device, default=training_device())
    parser.add_argument("--precision", nargs="+", choices=SETTINGS, help="default: all that the device has")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after so many")
    parser.add_argument("--eager", action="store_true", help="capture nothing")
    return parser.parse_args()


def main() -> None:
    """Print the tables, and write every figure where a file is named."""
    options = asked()
    device, end = options.device, time.monotonic() + options.seconds
    peaks = {precision: peak(precision, device) for precision in available(device)}
    names = [name for name, both in SETTINGS.items() if set(both) <= set(peaks)]
    names = [name for name in names if name in (options.precision or names)]
    print("peak, T multiply-adds/s:", ", ".join(f"{name} {value / 1e12:.3g}" for name, value in peaks.items()))
    titles = " | ".join(f"{name}, images/s | times faster | of peak" for name in names)
    print(f"| method | student | teacher | batch | plain, images/s | {titles} |\n|{'---|' * (5 + 3 * len(names))}")
    rows: list[dict[str, Any]] = []
    for case in CASES[device.type]:
        if rows and time.monotonic() > end:
            break
        row = measure(case, peaks, names, device, end, options.eager)
        rows.append(row)
        per_second, speed_up = row["images_per_second"], row["speed_up"]
        cells = [f"{per_second['plain']:.1f}" if "plain" in per_second else ""]
        for name in names:
            faster = f"{speed_up[name]:.2f}x" if name in speed_up else ""
            cells += [f"{per_second[name]:.1f}", faster, f"{row['of_peak'][name]:.0%}"]
        print(f"| {case} | {case.batch} | {' | '.join(cells)} |", flush=True)
    methods = {}
    for name in names:
        if time.monotonic() <= end:
            methods[name] = rates(name, device, end, eager=options.eager)
            print(f"{name}, images/s:", ", ".join(f"{method} {rate:.0f}" for method, rate in methods[name].items()))
    record = {"n": ROUNDS, "captured": device.type == "cuda" and not options.eager, "rows": rows, "peak": peaks}
    record |= {"images_per_second": methods, "device": device_name(device), "threads": torch.get_num_threads()}
    record |= {**machine_card(), "software": software(("torch",))}
    if options.output:
        options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How many operators the host launches one by one in a training step: as it is, and beside what is captured.

    python -m benchmarks.step_operators [OUTPUT.json]

Counted on the CPU by PyTorch's profiler: every operator that calls no other one, without those that only allocate or
look at memory. The second figure is of steps whose folding, search and outer step are replayed, so that each of the
three is one launch: the stand-in for a CUDA graph here replays nothing.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pipeline.methods.search import Precision
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.training.graphs import Recorder
from pipeline.training.trainer import Trainer

BATCH, STEPS = 8, 10
CASES: tuple[tuple[str, str, Precision], ...] = (
    ("resnet18", "resnet18", "fp32"),
    ("resnet18", "resnet18", "bf16"),
    ("resnet18", "wideresnet", "bf16"),
    ("mobilenet_v2", "resnet18", "bf16"),
)
"""Student, teacher (a wide one of depth 34) and precision; method AdaAD."""
NO_KERNEL = {
    f"aten::{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "resize_", "as_strided", "detach", "view", "reshape", "slice"),
        *("select", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "alias", "result_type", "split"),
        *("lift_fresh", "resolve_conj", "resolve_neg", "is_leaf", "item", "_local_scalar_dense"),
    )
}


class Nothing:
    """Captures like CUDA, which runs nothing, and replays nothing: what is left is what is launched beside."""

    def warm_up(self, work: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Run the work."""
        return work()

    def capture(self, work: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
        """Run the work once for its outputs."""
        return work(), lambda: None


def step(student: str, teacher: str, precision: Precision, recorder: Recorder | None) -> Callable[[int], object]:
    """Return a step of AdaAD at an eighth of the width, as a function of its number; width changes no count."""
    torch.manual_seed(0)
    recipe = load_recipe("fashion-mini", [f"search.steps={STEPS}", f"train.batch={BATCH}"])
    learner, guide = (build_network(arch, channels=3, classes=10, width=0.125) for arch in (student, teacher))
    trainer = Trainer(recipe, learner, frozen(guide), classes=10, precision=precision, recorder=recorder)
    images, labels = torch.rand(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    return lambda number: trainer.step(images, labels, number=number, steps_per_epoch=10, steps=20)


def operators(run: Callable[[int], object]) -> int:
    """Return the operators of the third step that compute something."""
    for number in range(2):
        run(number)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run(2)
    leaves = (
        event.name
        for event in seen.events() or ()
        if event.name.startswith("aten::") and not any(child.name.startswith("aten::") for child in event.cpu_children)
    )
    return sum(name not in NO_KERNEL for name in leaves)


def main() -> None:
    """Print the table, and write it where a file is named."""
    print("| student | teacher | precision | as it is | beside three replays |\n|---|---|---|---|---|")
    rows = []
    for case in CASES:
        counts = [operators(step(*case, recorder)) for recorder in (None, Nothing())]
        rows.append(
            {"student": case[0], "teacher": case[1], "precision": case[2], "eager": counts[0], "beside": counts[1]}
        )
        print(f"| {' | '.join(case)} | {counts[0]} | {counts[1]} |", flush=True)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

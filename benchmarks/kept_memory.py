"""What it is worth that freed memory is kept (`pipeline.memory`): AdaAD's step on the CPU with and without.

    OMP_NUM_THREADS=1 python -m benchmarks.kept_memory OUT.json

The recipe is fashion-mini, student and teacher as in it, the student also a MobileNetV2 of an eighth of the width. A
process can not be told to forget it, so that each measurement is a process of its own; they take turns. What is
compared is the processor's time, which other work on the machine disturbs less than the clock does.
"""

import json
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.compiled_step import trainer
from pipeline.memory import keep_freed_memory
from runtime.files import write_atomic
from runtime.machine.card import machine_card, software

CASES = {
    "resnet18, quarter width, fp32": ["train.precision=fp32"],
    "resnet18, quarter width, bf16": ["train.precision=bf16"],
    "mobilenet_v2, eighth width, fp32": ["student.arch=mobilenet_v2", "student.width=0.125", "train.precision=fp32"],
}
ROUNDS, WARM_UP, STEPS = 3, 2, 6


def measure(overrides: list[str], keep: bool) -> dict[str, Any]:
    """Return the seconds of processor time of each step, the page faults of one, and the largest memory in MiB."""
    if keep:
        keep_freed_memory()
    run, batches = trainer(overrides)
    images, labels = next(batches.epoch(0))
    seconds = []
    for number in range(WARM_UP + STEPS):
        if number == WARM_UP:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began = time.process_time()
        run.step(images, labels, number=number, steps_per_epoch=70, steps=280)
        seconds.append(round(time.process_time() - began, 3))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds[WARM_UP:],
        "faults_a_step": (used.ru_minflt - faults) // STEPS,
        "largest_mib": used.ru_maxrss // 1024,
    }


def main() -> None:
    """Measure all cases in turns and write the ratios."""
    figures = {}
    for name, overrides in CASES.items():
        runs: dict[str, list[dict[str, Any]]] = {"given back": [], "kept": []}
        for _ in range(ROUNDS):
            for how, measured in runs.items():
                # A pool of one process that does one task: nothing of the other way is left in it.
                with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                    measured.append(pool.apply(measure, (overrides, how == "kept")))
        ratios = [
            statistics.median(a["seconds"]) / statistics.median(b["seconds"])
            for a, b in zip(*runs.values(), strict=True)
        ]
        figures[name] = {"ratios": [round(ratio, 3) for ratio in ratios], "median": round(statistics.median(ratios), 3)}
        print(name, figures[name], flush=True)
        figures[name].update(runs)
    card = {"machine": machine_card(), "software": software(("torch",)), "cases": figures}
    write_atomic(Path(sys.argv[1]), (json.dumps(card, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()

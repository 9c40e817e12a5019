"""AdaAD and PGD-AT at equal epochs, and clean training, on fashion-mini: three seeds each, judged on the test images.

    python -m benchmarks.methods_on_fashion_mini RUNS [OUTPUT.json]

Every cell is the default recipe with another method or seed; a cell whose report is in RUNS is not run again. The
checkpoint judged is the one with the best PGD-10 accuracy on the hold-out; of clean training it is the last, since
choosing by PGD would stop it early for the sake of a robustness it is not trained for. An hour on two cores.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
METHODS = {
    "adaad": ("best", []),
    "pgd-at": ("best", ["method.name=pgd-at"]),
    "clean": ("last", ["method.name=pgd-at", "search.eps=0", "search.steps=0"]),
}
"""By name: the checkpoint that is judged, and the overrides."""


def edgeproof(*arguments: object) -> None:
    """Run one command in a process of its own."""
    subprocess.run([Path(sys.executable).with_name("edgeproof"), *map(str, arguments)], check=True)


def cell(runs: Path, method: str, checkpoint: str, own: list[str], seed: int) -> dict[str, Any]:
    """Train and judge one cell, or read what is there.

    Args:
        runs: where it lies, under `method` and seed.
        method: its name.
        checkpoint: the one that is judged, 'best' or 'last'.
        own: overrides of the default recipe.
        seed: of the run.

    """
    run, report = runs / f"{method}-{seed}", runs / f"{method}-{seed}.report"
    if not (run / "summary.json").exists():
        overrides = [part for override in [f"seed={seed}", *own] for part in ("--set", override)]
        edgeproof("distill", "fashion-mini", "--out", run, *overrides)
    if not report.exists():
        edgeproof("evaluate", run, "--checkpoint", checkpoint, "--attacks", "clean,pgd", "--out", report)
    summary, judged = (json.loads(path.read_text()) for path in (run / "summary.json", report / "report.json"))
    return {
        "method": method,
        "seed": seed,
        "clean": judged["clean"]["accuracy"],
        "pgd": judged["attacks"][0]["accuracy"],
        "n": judged["data"]["n"],
        "epoch": summary[checkpoint]["epoch"],
        "seconds": summary["seconds"],
        "threads": summary["threads"],
        "precision": summary["precision"],
        "search_precision": summary.get("search_precision"),
        "software": summary["software"],
    }


def main() -> None:
    """Print a table, and write every figure where a file is named."""
    runs = Path(sys.argv[1])
    cells = [cell(runs, method, *own, seed) for method, own in METHODS.items() for seed in SEEDS]
    print("| method | clean | PGD-10 |")
    print("|---|---|---|")
    for method in METHODS:
        own = [row for row in cells if row["method"] == method]
        figures = []
        for name in ("clean", "pgd"):
            values = [100 * row[name] for row in own]
            each = ", ".join(f"{value:.1f}" for value in values)
            figures.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} ({each})")
        print(f"| {method} | {figures[0]} | {figures[1]} |")
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(cells, indent=2) + "\n")


if __name__ == "__main__":
    main()

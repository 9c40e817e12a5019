"""What bf16 costs AdaAD in accuracy: a recipe in fp32, with the search in bf16, and all in bf16, paired by seed.

    OMP_NUM_THREADS=1 python -m benchmarks.bf16_paired RUNS fp32  # one at a time, so that two can run
    OMP_NUM_THREADS=1 python -m benchmarks.bf16_paired RUNS bf16-search,bf16
    python -m benchmarks.bf16_paired RUNS fp32,bf16-search,bf16 --out OUTPUT.json  # the table of what is there

The recipe is the default one; `--set` changes it as `edgeproof distill --set` does, in RUNS of its own. A cell whose
report is in RUNS is not run again. All are judged in fp32, on the 2,000 test images. A processor without bf16
instructions emulates them, many times slower: do not run it there.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods_on_fashion_mini import SEEDS, cell

SETTINGS = {
    "fp32": ["train.precision=fp32"],
    "bf16-search": ["train.precision=fp32", "search.precision=bf16"],
    "bf16": ["train.precision=bf16"],
}
"""By name: the overrides of the recipe."""


def line(name: str, rows: list[dict[str, Any]], first: list[dict[str, Any]]) -> str:
    """Return a row of the table: clean and PGD-10, mean and spread, each seed; and the differences paired by seed."""
    figures = []
    for figure in ("clean", "pgd"):
        values = [100 * row[figure] for row in rows]
        figures.append(f"{spread(values)} ({', '.join(f'{value:.2f}' for value in values)})")
    for figure in ("clean", "pgd"):
        differences = [100 * (row[figure] - other[figure]) for row, other in zip(rows, first, strict=True)]
        figures.append("" if rows is first else f"{spread(differences, sign='+')}")
    seconds = statistics.mean(row["seconds"] for row in rows)
    return f"| {name} | {' | '.join(figures)} | {seconds:.0f} |"


def spread(values: list[float], sign: str = "") -> str:
    """Write mean and standard deviation."""
    return f"{statistics.mean(values):{sign}.1f} ± {statistics.stdev(values):.1f}"


def main() -> None:
    """Run the cells of the settings named; of several, print a table with the differences to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("settings", type=lambda names: names.split(","))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.settings != ["fp32"] and not torch.cpu._is_avx512_bf16_supported():
        sys.exit("this processor has no bf16 instructions")
    cells = {
        name: [cell(asked.runs, f"adaad-{name}", "best", [*SETTINGS[name], *asked.overrides], seed) for seed in SEEDS]
        for name in asked.settings
    }
    first = cells[asked.settings[0]]
    print("| precision | clean | PGD-10 | paired: clean | PGD-10 | seconds |\n|---|---|---|---|---|---|")
    for name, rows in cells.items():
        print(line(name, rows, first))
    if asked.out:
        record = [{"overrides": asked.overrides, **row} for rows in cells.values() for row in rows]
        asked.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

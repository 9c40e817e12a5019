"""What bf16 costs AdaAD in accuracy and saves in time: the default recipe in fp32 and bf16, paired by seed.

    OMP_NUM_THREADS=1 python -m benchmarks.bf16_paired RUNS fp32  # one at a time, so that two can run
    OMP_NUM_THREADS=1 python -m benchmarks.bf16_paired RUNS bf16
    python -m benchmarks.bf16_paired RUNS fp32,bf16 [OUTPUT.json]  # the table of what is there

A cell whose report is in RUNS is not run again. Both precisions are judged in fp32, on the 2,000 test images. A
processor without bf16 instructions emulates them, many times slower: do not run it there.
"""

import json
import statistics
import sys
from pathlib import Path

import torch

from benchmarks.methods_on_fashion_mini import SEEDS, cell


def main() -> None:
    """Run the cells of the precisions named; of two, print the paired differences, second less first."""
    runs, precisions = Path(sys.argv[1]), sys.argv[2].split(",")
    if "bf16" in precisions and not torch.cpu._is_avx512_bf16_supported():
        sys.exit("this processor has no bf16 instructions")
    cells = {
        precision: [cell(runs, f"adaad-{precision}", "best", [f"train.precision={precision}"], s) for s in SEEDS]
        for precision in precisions
    }
    if len(precisions) == 2:
        first, second = cells.values()
        for figure in ("clean", "pgd"):
            differences = [100 * (b[figure] - a[figure]) for a, b in zip(first, second, strict=True)]
            own = statistics.stdev(100 * row[figure] for row in first)
            print(
                f"{figure}: {precisions[1]} - {precisions[0]} = {statistics.mean(differences):+.1f} points, "
                f"standard deviation {statistics.stdev(differences):.1f}, each {[round(d, 1) for d in differences]}; "
                f"of {precisions[0]} over seeds: {own:.1f}"
            )
    if len(sys.argv) > 3:
        Path(sys.argv[3]).write_text(json.dumps([row for rows in cells.values() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()

"""python -m tests.faults.publish DIR ...: what the trials say, onto the page of results, and the trials beside it."""

import json
import re
import sys
from pathlib import Path

from runtime.files import write_atomic
from tests.faults.report import page, summary
from tests.faults.session import KEY, TRIALS
from tests.paths import ROOT

PAGE, RAW = ROOT / "docs" / "results" / "faults.md", ROOT / "benchmarks" / "results" / "faults.jsonl"
MEASURED = re.compile(r"(?<=\n## Measured\n\n).*?(?=\n## )", re.DOTALL)


def publish(directories):
    """Write the trials of some --out directories, of one machine, into both files; a later one counts of two alike."""
    lines = [line for each in directories for line in (each / TRIALS).read_text().splitlines()]
    trials = {tuple(trial[name] for name in KEY): trial for trial in map(json.loads, lines)}
    kept = [trial for trial in trials.values() if trial["how"] is not None]
    made_on = json.loads((directories[0] / "faults.json").read_text())
    told = page({**made_on, **summary(kept)})
    write_atomic(RAW, "".join(json.dumps(trial) + "\n" for trial in kept).encode())
    write_atomic(PAGE, MEASURED.sub(lambda _: told, PAGE.read_text()).encode())


if __name__ == "__main__":
    publish([Path(each) for each in sys.argv[1:]])

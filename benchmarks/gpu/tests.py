"""The tests that need a card, or those of tests/pipeline beside one: how many pass, which fail, and why."""

import importlib.util
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.sheet import Sheet, parser

WHICH = {"gpu": ("-m", "gpu", "tests/gpu"), "pipeline": ("tests/pipeline",)}
TINY = {"gpu": ("-m", "gpu", "tests/gpu"), "pipeline": ("tests/pipeline/methods/test_losses.py",)}
FAILED, NO_START, NOTHING_RAN = 1, 4, 5
"""pytest's exit codes; `NO_START` as where a conftest cannot be imported. Of a part that number says: not there."""


def counted(report: Path) -> dict[str, Any]:
    """Return the counts of a JUnit report, the first line of every failure, and how often which reason skipped."""
    counts = Counter(passed=0, failed=0, skipped=0)
    failures, reasons = {}, Counter[str]()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        broken = next((case.find(tag) for tag in ("failure", "error") if case.find(tag) is not None), None)
        skip = case.find("skipped")
        if broken is not None:
            failures[name] = first_line(broken)
        elif skip is not None:
            reasons[first_line(skip)] += 1
        counts["failed" if broken is not None else "skipped" if skip is not None else "passed"] += 1
    return {**counts, "failures": failures, "skipped_because": dict(reasons)}


def first_line(of: ElementTree.Element) -> str:
    """Return the first line of a message, at most 300 characters."""
    return (of.get("message") or of.text or "").strip().partition("\n")[0][:300]


def ended(code: int, figures: dict[str, Any]) -> int:
    """Return the part's exit code: pytest's, but that nothing is missing where it could not start."""
    if code == NO_START:
        return FAILED
    return 0 if code == NOTHING_RAN and figures.get("skipped") else code


def main() -> int:
    """Run them, end by itself when its time is up, and note what was run until then."""
    options = parser(__doc__)
    options.add_argument("which", choices=list(WHICH))
    asked = options.parse_args()
    sheet, words = Sheet(asked.out, asked.seconds), (TINY if asked.tiny else WHICH)[asked.which]
    several = asked.which == "pipeline" and not asked.tiny and importlib.util.find_spec("xdist")
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += [f"--session-timeout={asked.seconds:.0f}", *(["-n", "8"] if several else []), *words]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if report.is_file():
            sheet.note(**counted(report))
    return ended(code, sheet.figures)


if __name__ == "__main__":
    sys.exit(main())

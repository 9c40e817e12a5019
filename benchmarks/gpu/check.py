"""`edgeproof gpu-check` of the bundle that the tests carry: the engines of this card beside the CPU."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.sheet import Sheet, parser

BUNDLE = "tests/data/tiny-bundle"


def main() -> int:
    """Run it, and note every check's figures; the exit code is its own."""
    asked = parser(__doc__).parse_args()
    sheet = Sheet(asked.out, asked.seconds)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "check"
        command = [sys.executable, "-m", "edgeproof", "gpu-check", BUNDLE, "--n", "24", "--out", str(out)]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        left = out / "gpu-check.json"
        if left.is_file():
            sheet.note(**{result["name"]: result for result in json.loads(left.read_bytes())["results"]})
    return code


if __name__ == "__main__":
    sys.exit(main())

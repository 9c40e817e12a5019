"""benchmarks/distill_step.py on this device: AdaAD's step beside a plain one, in every precision."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.sheet import Sheet, parser
from runtime.errors import MissingEnvironment

STEP = ROOT / "benchmarks" / "distill_step.py"


def main() -> int:
    """Run it where it takes a device, and take over its record; the exit code is its own."""
    asked = parser(__doc__).parse_args()
    sheet = Sheet(asked.out, asked.seconds)
    if '"--device"' not in STEP.read_text():
        print(f"{STEP.name} takes no --device in this version")
        return MissingEnvironment.exit_code
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "step.json"
        command = [sys.executable, "-m", "benchmarks.distill_step", str(out)]
        # It ends no case that it began: the last one needs time too.
        seconds, precisions = (1.0, ["--precision", "fp32"]) if asked.tiny else (0.6 * asked.seconds, [])
        command += ["--device", asked.device, "--seconds", f"{seconds:.0f}", *precisions]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if out.is_file():
            sheet.note(**json.loads(out.read_bytes()))
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Everything that a GPU alone can tell, within a budget of time, into one JSON file.

    python -m benchmarks.gpu --seconds 480 --out gpu.json

The parts run in the order of their worth, each in a process of its own; one that fails or takes too long does not stop
the next. The file is written after every part: who ends the run loses nothing. `--device cpu --tiny` tries the script
where there is no card.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.gpu.machine import ROOT, card, commit, libraries
from benchmarks.gpu.record import GpuRecord, PartRecord
from benchmarks.gpu.schedule import Part, run_parts
from runtime.errors import MissingEnvironment
from runtime.files import write_atomic
from runtime.machine.card import machine_card
from runtime.spec import to_json
from runtime.words import timestamp

PARTS = (
    ("gpu-tests", 3, ("tests", "gpu")),
    ("gpu-check", 2, ("check",)),
    ("attacks", 4, ("attacks",)),
    ("training", 3, ("training",)),
    ("autoattack", 2, ("autoattack",)),
    ("pipeline-tests", 2, ("tests", "pipeline")),
)
"""Name, share of the time, and the module with its arguments; in the order of their worth."""


def command(words: Sequence[str], shared: Sequence[str], seconds: float, out: Path) -> list[str]:
    """Return how a part is started."""
    module, *arguments = words
    own = [*arguments, *shared, "--seconds", f"{seconds:.1f}", "--out", str(out)]
    return [sys.executable, "-m", f"benchmarks.gpu.{module}", *own]


def chosen(asked: argparse.Namespace) -> tuple[Part, ...]:
    """Return the parts that are asked for."""
    shared = ["--device", asked.device, *(["--tiny"] if asked.tiny else [])]
    return tuple(
        Part(name, share, partial(command, words, shared))
        for name, share, words in PARTS
        if asked.parts is None or name in asked.parts
    )


def writer(asked: argparse.Namespace) -> Callable[[tuple[PartRecord, ...]], None]:
    """Return what writes the file, given what is known of the parts."""
    began, head = time.monotonic(), {
        "started": timestamp(),
        "device": asked.device,
        "tiny": asked.tiny,
        "commit": commit(),
        "budget": asked.seconds,
        "card": card(asked.device),
        "machine": machine_card(),
        "software": libraries(),
    }  # fmt: skip

    def write(parts: tuple[PartRecord, ...]) -> None:
        record = GpuRecord(**head, seconds=round(time.monotonic() - began, 2), parts=parts)
        write_atomic(asked.out, to_json(record))
        for part in parts:
            if part.state == "running":
                print(f"{part.name}: at most {part.limit:.0f} s", flush=True)

    return write


def options() -> argparse.ArgumentParser:
    """Return what can be asked."""
    names = [name for name, *_ in PARTS]
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seconds", type=float, required=True, help="budget of all parts together")
    asked.add_argument("--out", type=Path, required=True, help="the JSON file")
    asked.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    asked.add_argument("--parts", nargs="+", choices=names, help="these alone, in the order of their worth")
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit code is 1 where one failed or timed out, 4 where there is no card."""
    asked = options().parse_args(arguments)
    if asked.device == "cuda" and not card("cuda"):
        print("PyTorch finds no GPU; --device cpu --tiny tries the script", file=sys.stderr)
        return MissingEnvironment.exit_code
    parts = run_parts(chosen(asked), asked.seconds, writer(asked))
    for part in parts:
        print(f"{part.name}: {part.state}, {part.seconds:.0f} s{': ' * bool(part.reason)}{part.reason}")
    return int(any(part.state in ("failed", "timed out") for part in parts))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())

"""Collect what a bare machine with a GPU lacks, into .whl/, to be carried there with the working tree.

    python -m benchmarks.gpu.prepare --python 3.12

Such a machine has Python, PyTorch and its CUDA libraries, and reaches no registry. In .whl/base lie wheels of the
versions of this environment and one of this project; in .whl/ort-1 and so on the pieces of onnxruntime-gpu, which is
larger than one journey takes. `benchmarks/gpu/bare.sh` puts them together there; docs/gpu.md says how.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from benchmarks.gpu.machine import COMMIT, ROOT, commit
from runtime.errors import MissingEnvironment, UsageFault

PLACE = ROOT / ".whl"
LACKING = (
    "annotated-types", "array-api-compat", "cffi", "cryptography", "lightning-fabric", "lightning-utilities",
    "pycparser", "pydantic", "pydantic-core", "tomli-w", "torchattacks", "typing-inspection",
)  # fmt: skip
"""What an image with PyTorch, torchvision, onnx, onnxscript, scipy, matplotlib, pytest and xdist was found to lack."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
ORT_GPU = "1.31.1"
"""Built for CUDA 13, as PyTorch is; seen to run on an H200 with the libraries that PyTorch brings."""
LEFT_OUT = ("tensorrt", "/tools/", "/transformers/", "/quantization/")
"""Of onnxruntime-gpu: what no part asks for."""
JOURNEY = 64 << 20
"""Bytes that travel at once at most, the working tree among them."""
SPARE = 1 << 20
"""Bytes that a journey leaves free, for files that are written after the pieces were cut."""


def download(python: str, requirements: Iterable[str], to: Path) -> None:
    """Download wheels for Linux on x86-64, without what they require.

    Raises:
        MissingEnvironment: pip failed.

    """
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    wanted = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    pip("download", "--quiet", *wanted, "--dest", str(to), *requirements)


def pip(*words: str) -> None:
    """Run pip, as a process of its own."""
    result = subprocess.run([sys.executable, "-m", "pip", *words], cwd=ROOT, check=False)
    if result.returncode:
        raise MissingEnvironment(f"pip {words[0]} ended with {result.returncode}", hint="see what it said above")


def without(wheel: Path, left_out: Iterable[str], to: Path) -> None:
    """Copy a wheel without the files whose names hold any of `left_out`."""
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as part:
        for entry in whole.infolist():
            if not any(name in f"/{entry.filename}" for name in left_out):
                part.writestr(entry, whole.read(entry), zipfile.ZIP_DEFLATED)


def cut(file: Path, size: int, place: Path, name: str) -> list[Path]:
    """Cut a file into pieces of at most `size` bytes: PLACE/NAME-1/NAME.1 and so on, each beside their number."""
    data = file.read_bytes()
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    for number, part in enumerate(parts, 1):
        folder = place / f"{name}-{number}"
        folder.mkdir(parents=True)
        (folder / f"{name}.{number}").write_bytes(part)
        (folder / f"{name}.count").write_text(f"{len(parts)}\n")
    return [place / f"{name}-{number}" for number in range(1, len(parts) + 1)]


def weight(paths: Iterable[Path]) -> int:
    """Return the bytes of files."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def tracked() -> list[Path]:
    """Return the files of the working tree that travel: those that git knows, and new ones that it does not ignore."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def room_beside(tree: int) -> int:
    """Return how many bytes a piece may have beside the working tree.

    Raises:
        UsageFault: the working tree leaves less than SPARE.

    """
    room = JOURNEY - tree - SPARE
    if room < SPARE:
        raise UsageFault("the working tree is too heavy", hint=f"{JOURNEY >> 20} MiB travel at once")
    return room


def check_journeys(folders: Iterable[Path]) -> None:
    """Print what every journey weighs, the working tree with it.

    Raises:
        UsageFault: one is too heavy.

    """
    tree = weight(tracked())
    for folder in folders:
        total = tree + weight(folder.rglob("*"))
        print(f"{folder.relative_to(ROOT)}: {total / 2**20:.0f} MiB with the working tree")
        if total > JOURNEY:
            raise UsageFault(f"{folder.name} is too heavy", hint=f"{JOURNEY >> 20} MiB travel at once")


def main() -> None:
    """Collect everything anew."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--python", default="3.12", help="of the machine, as 3.12")
    asked.add_argument("--onnxruntime-gpu", default=ORT_GPU, metavar="VERSION", help="or none")
    options = asked.parse_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    base = COMMIT.parent
    download(options.python, [f"{name}=={version(name)}" for name in LACKING], base)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(base), ".")
    COMMIT.write_text(f"{commit() or 'unknown'}\n")
    folders = [base]
    if options.onnxruntime_gpu != "none":
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            download(options.python, [f"onnxruntime-gpu=={options.onnxruntime_gpu}"], place)
            (wheel,) = place.glob("*.whl")
            without(wheel, LEFT_OUT, place / "ort.zip")
            folders += cut(place / "ort.zip", room_beside(weight(tracked())), PLACE, "ort")
    check_journeys(folders)


if __name__ == "__main__":
    main()

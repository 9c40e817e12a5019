"""Opens sessions of ONNX Runtime's CUDA provider without a GPU. All decisions before the first kernel are as on a GPU.

The provider's library is linked to CUDA's libraries. Stand-ins with the same names and functions replace them. They
report one device (stand_in.c) and otherwise do nothing. So a session opens: the kernels are registered, the graph is
rewritten, and every node gets its provider. Nothing can be computed.
"""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("stand_in.c")
NVIDIA = re.compile(r"\(NEEDED\).*\[(lib(?:cu|nv)\S+)\]")
WANTED = re.compile(r" U (\w+)(?:@+(\S+))?$", re.MULTILINE)
DEFINED = re.compile(r"^\w[\w *]*?\b(\w+)\(", re.MULTILINE)
LOOSE = re.compile(r"cu|nv|create|get")
"""How the names of NVIDIA's functions begin, if they are linked without the version of the library."""
BY_NAME = re.compile(r"^cudnn[A-Z]\w+$", re.MULTILINE)
"""Functions that are looked up by name when they are called."""
CUDNN, DRIVER = "libcudnn.so.9", "libcuda.so.1"


@dataclass(frozen=True)
class StandIn:
    """An unpacked onnxruntime-gpu, and the stand-in libraries that it is linked to."""

    packages: Path
    libraries: Path

    def run(self, function: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call `function` (as module:name) with strings, in a process that imports this onnxruntime; keep its output.

        Raises:
            CalledProcessError: the process failed.

        """
        module, name = function.split(":")
        code = f"import sys; from {module} import {name}; {name}(*sys.argv[1:])"
        path = os.pathsep.join([str(self.packages), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(self.libraries)}
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=True
        )


@contextmanager
def stand_in(wheel: Path) -> Iterator[StandIn]:
    """Unpack a wheel of onnxruntime-gpu for this Python, and build the libraries that it needs (gcc, binutils)."""
    with tempfile.TemporaryDirectory() as place:
        made = StandIn(Path(place) / "packages", Path(place) / "libraries")
        zipfile.ZipFile(wheel).extractall(made.packages)
        made.libraries.mkdir()
        _make(made.packages / "onnxruntime" / "capi", made.libraries)
        yield made


def _make(providers: Path, place: Path) -> None:
    """Build a stand-in, with its functions, for every NVIDIA library that ONNX Runtime's providers are linked to."""
    libraries, versioned, loose = {CUDNN, DRIVER}, dict[str, set[str]](), set[str]()
    for provider in providers.glob("libonnxruntime_providers_*.so"):
        libraries.update(NVIDIA.findall(_said("readelf", "--dynamic", provider)))
        for function, library in WANTED.findall(_said("nm", "--dynamic", "--undefined-only", provider)):
            if library in libraries:
                versioned.setdefault(library, set()).add(function)
            elif not library and LOOSE.match(function.lstrip("_")):
                loose.add(function)
        loose.update(BY_NAME.findall(_said("strings", provider)))
    for library in libraries:
        _link(place, library, versioned.get(library, set()), loose)


def _link(place: Path, library: str, versioned: set[str], loose: set[str]) -> None:
    """Link one library. If a provider requires its functions with a version, all of its functions get that version."""
    source, script = place / f"{library}.c", place / f"{library}.map"
    known = SOURCE.read_text()
    idle = sorted((versioned | loose) - set(DEFINED.findall(known)))
    source.write_text(known + "".join(f"int {function}(void) {{ return 0; }}\n" for function in idle))
    script.write_text(f"{library} {{ global: *; }};" if versioned else "{ global: *; };")
    options = [f"-Wl,-soname,{library}", f"-Wl,--version-script={script}"]
    _said("gcc", "-shared", "-fPIC", "-w", *options, "-o", place / library, source)


def _said(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

"""Places with stand-ins: of the CUDA driver for LD_LIBRARY_PATH, of TensorRT and PyCUDA for PYTHONPATH."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_driver.c")
TENSORRT = "import sys; from tests.runtime.tensorrt import fake_tensorrt; sys.modules[__name__] = fake_tensorrt"


def compiler():
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("no C compiler: the stand-in of the CUDA driver cannot be made")
    return found


def make_driver(place, headers=(), text=str):
    """Make libcuda.so.1 of the source as `text` changes it.

    Every function that a header names and the source lacks is there too, and always fails.
    """
    tool = compiler()
    place.mkdir(exist_ok=True)
    source = text(SOURCE.read_text())
    code = place / "driver.c"
    code.write_text(source)
    names = {name for header in headers for name in re.findall(r"\bcu(?:rand)?[A-Z]\w+\b", header.read_text())}
    written = set(re.findall(r"^R (\w+)\(", source, re.MULTILINE))
    rest = place / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(names - written)))
    library = place / "libcuda.so.1"
    command = [tool, "-shared", "-fPIC", "-o", library, code, rest, "-Wl,-soname,libcuda.so.1"]
    subprocess.run(command, check=True)
    return place


def make_libraries(place):
    """Make a Python path with the stand-ins of TensorRT and PyCUDA."""
    (place / "tensorrt").mkdir()
    (place / "tensorrt/__init__.py").write_text(TENSORRT)
    shutil.copytree(SOURCE.with_name("fake_pycuda"), place / "pycuda")
    return place

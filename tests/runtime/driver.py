"""A directory with the CUDA driver of fake_driver.c in it, for LD_LIBRARY_PATH."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_driver.c")


def make_driver(place):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the stand-in of the CUDA driver cannot be made")
    place.mkdir(exist_ok=True)
    library = place / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-Wl,-soname,libcuda.so.1"], check=True)
    return place

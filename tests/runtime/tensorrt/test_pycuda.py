"""PyCUDA itself, compiled here: over the driver in C its own code allocates, maps, pushes and pops."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.runtime.tensorrt.driver import compiler, hide_bindings, make_driver
from tests.runtime.tensorrt.test_missing import python, refused, without_driver
from tests.runtime.tensorrt.test_whole_way import MEMORY, check_the_whole_way, use_memory, verify

HEADERS = ("cuda.h", "cudaProfiler.h", "curand.h")
"""That declare what PyCUDA links to."""


@pytest.fixture(scope="module")
def real_libraries(tmp_path_factory, libraries):
    """Return a Python path with the stand-in of TensorRT and PyCUDA itself, and a driver with all that it links to."""
    place = tmp_path_factory.mktemp("compiled")
    toolkit = find_toolkit()
    headers = [folder / name for folder in toolkit for name in HEADERS if (folder / name).is_file()]
    lib = make_driver(place / "lib", headers)
    for name in ("libcuda.so", "libcurand.so"):
        (lib / name).symlink_to("libcuda.so.1")
    environment = os.environ | {
        "CPATH": os.pathsep.join(map(str, toolkit)),
        "LIBRARY_PATH": str(lib),
        "CUDA_ROOT": str(Path(shutil.which("nvcc")).resolve().parents[1]),
    }
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--target", place / "site"]
    subprocess.run([*command, "pycuda>=2024.1"], env=environment, check=True)
    shutil.copytree(libraries / "tensorrt", place / "site/tensorrt")
    hide_bindings(place / "site")
    return place / "site", lib


def find_toolkit():
    """Return the directories of cuda.h and curand.h; skips where there is no toolkit."""
    compiler()
    if shutil.which("nvcc") is None:
        pytest.skip("no CUDA toolkit: nvcc is not on PATH, and PyCUDA cannot be compiled")
    root = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    places = [root / "include", *Path(sysconfig.get_path("purelib")).glob("nvidia/*/include")]
    places += [folder for path in sys.path for folder in Path(path).glob("nvidia/*/include")]
    found = [next((place for place in places if (place / name).is_file()), None) for name in ("cuda.h", "curand.h")]
    if None in found:
        pytest.skip("no CUDA toolkit: cuda.h or curand.h is not there, and PyCUDA cannot be compiled")
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pycuda_itself_works_up_to_the_driver(tmp_path, real_libraries):
    site, lib = real_libraries
    if without_driver():
        result = use_memory("pass", PYTHONPATH=str(site))
        assert "nor can PyCUDA: libcuda.so.1: cannot open shared object" in result.stderr
        asked = ("--backend", "tensorrt", "--state", tmp_path / "state")
        refused(verify(tmp_path / "no", *asked, PYTHONPATH=str(site)), "no CUDA driver")
    environment = {"LD_LIBRARY_PATH": str(lib), "PYTHONPATH": str(site)}
    result = python("-c", MEMORY, **environment)
    assert result.stdout.splitlines() == ["PycudaMemory", *["Fake Orin True"] * 2], result.stderr
    check_the_whole_way(tmp_path, **environment)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_stand_in_of_pycuda_has_nothing_that_pycuda_has_not(real_libraries):
    site, lib = real_libraries
    ask = (
        "import pycuda.driver as d; "
        "kinds = (d, d.Stream, d.Context, d.PagelockedHostAllocation, d.DeviceAllocation); "
        "print(*(name for each in kinds for name in dir(each)))"
    )
    result = python("-c", ask, LD_LIBRARY_PATH=str(lib), PYTHONPATH=str(site))
    names = result.stdout.split()
    used = {"pagelocked_zeros", "host_alloc_flags", "Stream", "Error", "MemoryError", "PagelockedHostAllocation"}
    used |= {"mem_alloc", "DeviceAllocation"}
    assert used | {"handle", "synchronize", "push", "pop", "free", "get_device_pointer"} <= set(names), result.stderr

"""The whole way of `--backend tensorrt` in a process of its own: driver, TensorRT, PyCUDA, verdict.

The driver is a stand-in in C, TensorRT the strict one that computes with ONNX Runtime. PyCUDA is a strict stand-in, and
in the slow tier the real one, compiled here: over the driver in C its own code allocates, maps, pushes and pops.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.tensorrt.driver import compiler, make_driver
from tests.runtime.tensorrt.test_missing import BUNDLE, RUN, python, refused, without_driver

HEADERS = ("cuda.h", "cudaProfiler.h", "curand.h")
"""That declare what PyCUDA links to."""
MEMORY = """
import threading
import numpy as np
from runtime.machine import driver
from runtime.tensorrt.memory import PycudaMemory

memory = PycudaMemory()

def work():
    with memory.active():
        print(driver.current().name, memory.stream > 0)
        buffer = memory.allocate((3, 4))
        assert buffer.address == buffer.array.ctypes.data and buffer.array.dtype == np.float32
        assert not buffer.array.any()
        buffer.array[...] = 1
        working = memory.reserve(1000)
        assert working.address % 256 == 0 and working.array is None
        memory.synchronize()
        memory.free(buffer)
        memory.free(working)

work()
thread = threading.Thread(target=work)
thread.start()
thread.join()
with memory.active():
    memory.close()
"""


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


def verify(out, *options, **environment):
    return python(
        "-c", RUN, "verify", BUNDLE, "--n", "24", "--attacks", "pgd", "--no-gate", "--batch", "100",
        "--out", out, *options,
        **environment,
    )  # fmt: skip


def check_the_whole_way(tmp_path, **environment):
    """TensorRT's verdict is ONNX Runtime's, image by image; a second run loads the engines of the first."""
    state = ("--state", tmp_path / "state")
    ours = verify(tmp_path / "trt", "--backend", "tensorrt", *state, **environment)
    assert ours.returncode == 0, ours.stderr
    assert ours.stderr.count("building it") == 2
    assert verify(tmp_path / "ort").returncode == 0
    for name in ("broken_by", "clean_prediction", "adversarial_prediction"):
        first, second = (np.load(tmp_path / run / "evidence.npz")[name] for run in ("trt", "ort"))
        np.testing.assert_array_equal(first, second)
    report = json.loads((tmp_path / "trt/report.json").read_text())
    artifact = report["artifact"]
    assert (artifact["backend"], artifact["provider"], artifact["tf32"]) == ("tensorrt", "tensorrt", False)
    assert re.fullmatch("[0-9a-f]{64}", artifact["engine_sha256"])
    assert report["device"]["accelerator"] == "Fake Orin"
    assert "--backend tensorrt --provider tensorrt" in report["request"]["command"]
    again = verify(tmp_path / "again", "--backend", "tensorrt", *state, **environment)
    assert again.returncode == 0
    assert "building it" not in again.stderr


def test_a_verdict_on_tensorrt_is_the_one_on_onnx_runtime(tmp_path, driver, libraries):
    check_the_whole_way(tmp_path, LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(libraries))


def test_a_gate_on_tensorrt_has_the_checks_and_the_blind_control_of_one_on_onnx_runtime(tmp_path, driver, libraries):
    gated = ("-c", RUN, "verify", BUNDLE, "--fail-under", "20%", "--out")
    environment = {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(libraries)}
    ours = python(*gated, tmp_path / "trt", "--backend", "tensorrt", "--state", tmp_path / "state", **environment)
    theirs = python(*gated, tmp_path / "ort")
    assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr
    first, second = (json.loads((tmp_path / run / "report.json").read_text()) for run in ("trt", "ort"))
    assert first["blind_control"]["n"] > 10
    for report in (first, second):
        del report["blind_control"]["seconds"]
    for name in ("verdict", "reasons", "robust_accuracy", "gradient_test", "blind_control"):
        assert first[name] == second[name]
    states = [{each["check"]: each["state"] for each in report["checks"]} for report in (first, second)]
    assert states[0] | {"fusion": states[1]["fusion"]} == states[1]  # TensorRT has no plain form to compare with
    assert states[0]["claimed-threat"] == states[0]["gradient-holds"] == states[0]["blind-control"] == "quiet"


def test_memory_that_runs_out_on_the_way_halves_the_batch_to_the_same_verdict(tmp_path, driver, libraries):
    environment = {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(libraries)}
    asked = ("--backend", "tensorrt", "--state", tmp_path / "state")
    scarce = verify(tmp_path / "scarce", *asked, FAKE_MEMORY="100000", **environment)
    assert scarce.returncode == 0, scarce.stderr
    assert "memory ran out at 24 images at a time: going on with 12" in scarce.stderr
    assert verify(tmp_path / "enough", *asked, **environment).returncode == 0
    first, second = (np.load(tmp_path / run / "evidence.npz") for run in ("scarce", "enough"))
    for name in ("broken_by", "clean_prediction", "adversarial_prediction"):
        np.testing.assert_array_equal(first[name], second[name])
    nothing = verify(tmp_path / "nothing", *asked, FAKE_MEMORY="1000", **environment)
    assert nothing.returncode == 4
    assert "a single image does not fit the memory" in nothing.stderr


def test_memory_is_used_from_the_thread_that_works(driver, libraries):
    result = python("-c", MEMORY, LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(libraries))
    assert result.stdout.splitlines() == ["Fake Orin True"] * 2, result.stderr
    assert result.stderr == ""


def test_too_little_memory_of_the_gpu_is_said(driver, libraries):
    more = "from runtime.tensorrt.memory import PycudaMemory\nm = PycudaMemory()\nwith m.active(): m.{}"
    for call, failed in (("allocate((2**27,))", "cuMemHostAlloc"), ("reserve(2**29)", "cuMemAlloc")):
        result = python("-c", more.format(call), LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(libraries))
        assert f"OutOfMemory: CUDA: {failed} failed: out of memory" in result.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pycuda_itself_works_up_to_the_driver(tmp_path, real_libraries):
    site, lib = real_libraries
    if without_driver():
        place = tmp_path / "state"
        result = python("-c", "from runtime.tensorrt.memory import PycudaMemory; PycudaMemory()", PYTHONPATH=str(site))
        assert "MissingEnvironment: PyCUDA cannot be imported: libcuda.so.1: cannot open shared object" in result.stderr
        refused(
            verify(tmp_path / "no", "--backend", "tensorrt", "--state", place, PYTHONPATH=str(site)), "no CUDA driver"
        )
    environment = {"LD_LIBRARY_PATH": str(lib), "PYTHONPATH": str(site)}
    result = python("-c", MEMORY, **environment)
    assert result.stdout.splitlines() == ["Fake Orin True"] * 2, result.stderr
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

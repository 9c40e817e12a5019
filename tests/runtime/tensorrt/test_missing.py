"""What is said, in processes of their own, where the driver, a GPU, TensorRT or what finds its memory is missing."""

import os
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.runtime.tensorrt.driver import make_driver

BUNDLE = ROOT / "tests/data/tiny-bundle"
RUN = "import sys; from runtime.cli import main; sys.argv[0] = 'edgeproof'; main()"
PROBE = "from runtime.machine import driver; print(driver.probe())"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return make_driver(tmp_path_factory.mktemp("driver") / "lib")


@pytest.fixture
def modules(tmp_path):
    """Return a function that makes a module of the Python path."""
    place = tmp_path / "modules"

    def make(name, text):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text(text)
        return place

    return make


def python(*arguments, **environment):
    kept = {key: value for key, value in os.environ.items() if key not in ("LD_LIBRARY_PATH", "EDGEPROOF_BACKEND")}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.pop("PYTHONPATH", ""), str(ROOT))))
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=kept | environment, capture_output=True, text=True, check=False
    )


def verify(tmp_path, *options, **environment):
    out = ("--out", tmp_path / "report", "--state", tmp_path / "state")
    return python("-c", RUN, "verify", BUNDLE, *options, *out, **environment)


def refused(result, *words):
    assert result.returncode == 4, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "\nhint: " in result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr


def without_driver():
    return python("-c", "import ctypes; ctypes.CDLL('libcuda.so.1')").returncode != 0


needs_no_driver = pytest.mark.skipif(not without_driver(), reason="this machine has a CUDA driver")


@needs_no_driver
@pytest.mark.parametrize("how", ["option", "environment"])
def test_without_a_driver_the_backend_is_refused_and_nothing_takes_its_place(tmp_path, how):
    if how == "option":
        result = verify(tmp_path, "--backend", "tensorrt")
    else:
        result = verify(tmp_path, EDGEPROOF_BACKEND="tensorrt")
    refused(result, "no CUDA driver", "--runtime nvidia")
    assert not (tmp_path / "report").exists()


def test_a_driver_without_a_gpu_is_refused(tmp_path, driver):
    refused(verify(tmp_path, "--backend", "tensorrt", LD_LIBRARY_PATH=str(driver), FAKE_DEVICES="0"), "finds no GPU")


def test_a_driver_that_does_not_start_is_quoted(tmp_path, driver):
    result = verify(tmp_path, "--backend", "tensorrt", LD_LIBRARY_PATH=str(driver), FAKE_INIT="100")
    refused(result, "cuInit returned 100, no CUDA-capable device is detected")


def test_a_driver_that_lacks_what_is_asked_of_it_is_too_old(tmp_path, driver):
    old = make_driver(tmp_path / "old", text=lambda source: source.replace("cuDeviceGetUuid_v2", "cuDeviceGetUuid"))
    result = verify(tmp_path, "--backend", "tensorrt", LD_LIBRARY_PATH=str(old))
    refused(result, "the CUDA driver is too old: it has no cuDeviceGetUuid_v2", "update it")


def test_without_tensorrt_the_backend_is_refused(tmp_path, driver, modules):
    place = modules("tensorrt", "raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    result = verify(tmp_path, "--backend", "tensorrt", LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(place))
    refused(result, "TensorRT is not installed: libnvinfer.so.10", "JetPack 6.1")


@pytest.mark.parametrize("version", ["8.6.2", "10.0.1", "10.2.0.post1"])
def test_a_tensorrt_that_is_too_old_is_refused(tmp_path, driver, modules, version):
    place = modules("tensorrt", f"__version__ = {version!r}")
    result = verify(tmp_path, "--backend", "tensorrt", LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(place))
    refused(result, f"this is TensorRT {version}", "needs 10.3 or later")


EMPTY_TENSORRT = "__version__ = '10.3.0'\nclass ILogger:\n    def __init__(self): pass\n"


def test_without_cuda_bindings_and_pycuda_the_backend_is_refused(tmp_path, driver, modules):
    place = modules("tensorrt", EMPTY_TENSORRT)
    modules("cuda", "")
    modules("pycuda", "raise ImportError('No module named pycuda')")
    result = verify(tmp_path, "--backend", "tensorrt", LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(place))
    refused(result, "cuda-bindings cannot be imported: No module named 'cuda.bindings'", "nor can PyCUDA", "[cuda]")


def test_a_gpu_that_is_full_is_told_from_one_that_is_not_there(tmp_path, driver, modules):
    place = modules("tensorrt", EMPTY_TENSORRT)
    modules("cuda", "")
    modules("pycuda", "")
    (place / "pycuda/autoprimaryctx.py").write_text(
        "raise RuntimeError('cuDevicePrimaryCtxRetain failed: out of memory')"
    )
    result = verify(tmp_path, "--backend", "tensorrt", LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(place))
    refused(result, "no room for a context: cuDevicePrimaryCtxRetain failed: out of memory", "stop other programs")


def test_what_the_driver_says_of_its_device_is_read_right(driver):
    result = python("-c", PROBE, LD_LIBRARY_PATH=str(driver))
    words = (
        f"CudaDevice(name='Fake Orin', uuid='{'ab' * 16}', compute_capability='8.7', cuda='12.6', memory={64 * 2**30})"
    )
    assert result.stdout.strip() == words, result.stderr

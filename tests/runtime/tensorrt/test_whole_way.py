"""The whole way of `--backend tensorrt` in a process of its own: driver, TensorRT, memory, verdict.

The driver is a stand-in in C, TensorRT the strict one that computes with ONNX Runtime. cuda-bindings is the real one,
whose own code finds the driver, allocates, maps, pushes and pops; PyCUDA is a strict stand-in, which test_pycuda.py
holds against the real one.
"""

import json
import re

import numpy as np
import pytest

from tests.runtime.tensorrt.driver import make_driver
from tests.runtime.tensorrt.test_missing import BUNDLE, RUN, needs_no_driver, python

MEMORY = """
import threading
import numpy as np
from runtime.machine import driver
from runtime.tensorrt.cuda_memory import open_memory

memory = open_memory()
print(type(memory).__name__)

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

PLACES = {"BindingsMemory": "libraries", "PycudaMemory": "pycuda_libraries"}
"""The fixture of the Python path in which a process finds that memory."""


@pytest.fixture(params=PLACES)
def kind(request):
    if request.param == "BindingsMemory":
        pytest.importorskip("cuda.bindings")
    return request.param


@pytest.fixture
def environment(kind, request, driver):
    """The variables under which a process has a GPU, and its memory by one package alone."""
    return {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(request.getfixturevalue(PLACES[kind]))}


def verify(out, *options, **environment):
    return python(
        "-c", RUN, "verify", BUNDLE, "--n", "24", "--attacks", "pgd", "--no-gate", "--batch", "100",
        "--out", out, *options,
        **environment,
    )  # fmt: skip


def check_the_whole_way(tmp_path, provider="tensorrt", **environment):
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
    assert (artifact["backend"], artifact["provider"], artifact["tf32"]) == ("tensorrt", provider, False)
    assert re.fullmatch("[0-9a-f]{64}", artifact["engine_sha256"])
    assert report["device"]["accelerator"] == "Fake Orin"
    assert f"--backend tensorrt --provider {provider} " in report["request"]["command"]
    assert report["request"]["provider"] == provider
    again = verify(tmp_path / "again", "--backend", "tensorrt", *state, **environment)
    assert again.returncode == 0
    assert "building it" not in again.stderr


def test_a_verdict_on_tensorrt_is_the_one_on_onnx_runtime(tmp_path, environment):
    check_the_whole_way(tmp_path, **environment)


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


def test_memory_that_runs_out_on_the_way_halves_the_batch_to_the_same_verdict(tmp_path, environment):
    asked = ("--backend", "tensorrt", "--state", tmp_path / "state")
    scarce = verify(tmp_path / "scarce", *asked, FAKE_MEMORY="100000", **environment)
    assert scarce.returncode == 0, scarce.stderr
    assert "memory ran out with batches of 24; continuing with 12" in scarce.stderr
    assert verify(tmp_path / "enough", *asked, **environment).returncode == 0
    first, second = (np.load(tmp_path / run / "evidence.npz") for run in ("scarce", "enough"))
    for name in ("broken_by", "clean_prediction", "adversarial_prediction"):
        np.testing.assert_array_equal(first[name], second[name])
    nothing = verify(tmp_path / "nothing", *asked, FAKE_MEMORY="1000", **environment)
    assert nothing.returncode == 4
    assert "a single image does not fit in memory" in nothing.stderr


def test_memory_is_used_from_the_thread_that_works(kind, environment):
    result = python("-c", MEMORY, **environment)
    assert result.stdout.splitlines() == [kind, *["Fake Orin True"] * 2], result.stderr
    assert result.stderr == ""


def use_memory(*lines, **environment):
    """Run lines in a process that has the memory `m` in hand."""
    opening = "from runtime.tensorrt.cuda_memory import open_memory\nm = open_memory()\nwith m.active():\n"
    return python("-c", opening + "\n".join(f"    {line}" for line in lines), **environment)


def test_too_little_memory_of_the_gpu_is_said(environment):
    for call, failed in (("allocate((2**27,))", "cuMemHostAlloc"), ("reserve(2**29)", "cuMemAlloc")):
        said = use_memory(f"m.{call}", **environment).stderr
        assert f"OutOfMemory: CUDA: {failed} failed: out of memory" in said


def test_memory_that_is_given_back_is_there_again(environment):
    lines = ("for _ in range(3):", "    m.free(m.allocate((200,)))", "    m.free(m.reserve(800))", "m.close()")
    assert use_memory(*lines, FAKE_MEMORY="1500", **environment).stderr == ""


@pytest.fixture
def bindings(libraries):
    """The Python path in which memory is cuda-bindings'."""
    pytest.importorskip("cuda.bindings")
    return {"PYTHONPATH": str(libraries)}


@pytest.mark.parametrize(
    ("code", "error", "reason"), [(1, "EngineFault", "invalid argument"), (2, "OutOfMemory", "out of memory")]
)
def test_memory_that_the_device_does_not_map_is_given_back(tmp_path, bindings, code, error, reason):
    mapped, not_mapped = "(unsigned long long)memory; return 0", f"0; return {code}"
    lib = make_driver(tmp_path / "lib", text=lambda source: source.replace(mapped, not_mapped))
    lines = (
        "for _ in range(3):",
        "    try: m.allocate((200,))",
        "    except Exception as e: print(repr(e))",
    )
    result = use_memory(*lines, LD_LIBRARY_PATH=str(lib), FAKE_MEMORY="1000", **bindings)
    said = f"{error}('CUDA: cuMemHostGetDevicePointer failed: {reason}')"
    assert result.stdout.splitlines() == [said] * 3, result.stderr


CONTEXTS = {
    "2": "OutOfMemory: the GPU has no room for a context: {}: out of memory",
    "100": "MissingEnvironment: cuda-bindings finds no device: {}: no CUDA-capable device is detected",
    "4242": "MissingEnvironment: cuda-bindings finds no device: {}: 4242",
}
"""By the code that the driver returns; the last one is none that cuda-bindings know."""


@pytest.mark.parametrize("code", CONTEXTS)
def test_a_context_that_is_not_made_is_told_by_why(driver, bindings, code):
    result = use_memory("pass", LD_LIBRARY_PATH=str(driver), FAKE_CONTEXT=code, **bindings)
    assert CONTEXTS[code].format("CUDA: cuDevicePrimaryCtxRetain failed") in result.stderr


@pytest.mark.parametrize("name", ["cuMemHostAlloc", "cuGetProcAddress"])
def test_a_driver_without_a_function_is_not_used(tmp_path, bindings, name):
    lib = make_driver(tmp_path / "lib", text=lambda source: source.replace(f"R {name}", f"R an_older_{name}"))
    said = use_memory("m.allocate((1,))", LD_LIBRARY_PATH=str(lib), **bindings).stderr
    assert re.search(f"MissingEnvironment: cuda-bindings cannot use the CUDA driver: .*{name}", said), said


@needs_no_driver
def test_cuda_bindings_without_a_driver_are_not_used(bindings):
    assert "MissingEnvironment: cuda-bindings cannot use the CUDA driver: " in use_memory("pass", **bindings).stderr

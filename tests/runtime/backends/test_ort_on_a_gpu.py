"""ONNX Runtime's CUDA and TensorRT providers: never another one in their place.

Without a GPU, onnxruntime-gpu lists providers that do not work. Here ONNX Runtime itself is asked for one that it does
not have: it falls back, or refuses to, as onnxruntime-gpu does where CUDA is missing (seen with 1.26.0). That a
provider takes its options, and computes as its card says, only a card can tell: tests/gpu.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import parser

from runtime.backends.ort import OrtSession
from runtime.backends.providers import PROVIDERS, Provider, options_of
from runtime.errors import MissingEnvironment, OutOfMemory, UsageFault
from runtime.machine.driver import CudaDevice
from tests.tiny import FORWARD, GRADIENT, graph

GPU = CudaDevice("Orin", "ab" * 16, "8.7", "12.6")
CPU = "CPUExecutionProvider"
AZURE = "AzureExecutionProvider"
ON_GPU = ["cuda", "tensorrt"]
CONSTANT = """
<ir_version: 8, opset_import: ["" : 18]>
constant (float[B, 1, 4, 4] input) => (float[1, 3] logits) <float[1, 3] logits = {1, 2, 3}> {}
"""
LEFT_OUT = "ignore:Specified provider:UserWarning"
"""What a build without GPUs says, and onnxruntime-gpu does not, before it goes on without the provider."""


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """A machine with a GPU, whose ONNX Runtime lists all providers."""
    monkeypatch.setattr("runtime.machine.driver.probe", lambda: GPU)
    listed = [kind.name for kind in PROVIDERS.values()] + [AZURE]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)


def open_(files, provider, place, **changes):
    graphs = files["model.fp32.onnx"], files["model.fp32.grad.onnx"]
    return OrtSession(*graphs, precision="fp32", provider=provider, state=place, **changes)


class OnTheGpu(onnxruntime.InferenceSession):
    """A session on the CPU that says it is where it was asked to be."""

    def __init__(self, model, settings, providers, **named):
        super().__init__(model, providers=[CPU])
        self.asked = [name for name, _ in providers]

    def get_providers(self):
        return self.asked


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("provider", ON_GPU)
def test_a_provider_that_is_listed_but_does_not_work_is_refused(files, tmp_path, provider):
    with pytest.raises(MissingEnvironment, match=r"cannot run the forward graph: .*assigned to the default CPU EP"):
        open_(files, provider, tmp_path)


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("provider", ON_GPU)
def test_a_provider_that_does_not_work_is_refused_where_a_graph_has_nothing_to_place(files, tmp_path, provider):
    constant = {"model.fp32.onnx": parser.parse_model(CONSTANT).SerializeToString()}
    with pytest.raises(MissingEnvironment, match="does not work here"):
        open_(files | constant, provider, tmp_path)


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason="this ONNX Runtime has the CPU alone")
def test_a_graph_of_which_a_part_would_run_on_the_cpu_is_refused(files, tmp_path, monkeypatch):
    """Azure's provider works everywhere, and takes no node of ours."""
    monkeypatch.setitem(PROVIDERS, "cuda", Provider(AZURE, lambda tf32, engines, graph: {}))
    with pytest.raises(MissingEnvironment, match=r"cannot run the forward graph: .*assigned to the default CPU EP"):
        open_(files, "cuda", tmp_path)


@pytest.mark.parametrize("provider", ON_GPU)
def test_another_provider_never_takes_the_place_of_one_that_is_missing(files, tmp_path, provider, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(MissingEnvironment, match=PROVIDERS[provider].name) as caught:
        open_(files, provider, tmp_path)
    assert "onnxruntime-gpu" in caught.value.hint


@pytest.mark.parametrize("provider", ON_GPU)
def test_a_session_names_its_provider_and_device_and_rounds_apart(files, task, tmp_path, provider, card):
    by_itself = onnxruntime.InferenceSession(files["model.fp32.onnx"], providers=[CPU])
    card()
    with open_(files, provider, tmp_path) as session:
        card = session.card()
        assert (card.backend, card.provider, card.device, card.tf32) == ("ort", provider, "Orin", False)
        assert card.rounds_apart
        (logits,) = by_itself.run(None, {"input": task[2]})
        np.testing.assert_allclose(session.logits(task[2]), logits, atol=1e-6)


@pytest.mark.parametrize("provider", ON_GPU)
def test_a_gpu_that_is_full_is_told_from_a_provider_that_does_not_work(files, tmp_path, provider, monkeypatch):
    def full(*given, **named):
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);")

    monkeypatch.setattr(onnxruntime, "InferenceSession", full)
    with pytest.raises(OutOfMemory, match="forward graph does not fit in memory: CUDA failure 2"):
        open_(files, provider, tmp_path)


def test_without_a_driver_the_driver_is_to_blame(files, tmp_path, monkeypatch):
    def nothing():
        raise MissingEnvironment("there is no CUDA driver here")

    monkeypatch.setattr("runtime.machine.driver.probe", nothing)
    with pytest.raises(MissingEnvironment, match="no CUDA driver"):
        open_(files, "cuda", tmp_path)


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("provider", ON_GPU)
@pytest.mark.parametrize("first", [False, True])
def test_a_process_never_uses_the_gpu_with_tf32_and_without(files, tmp_path, provider, first):
    """NVIDIA's libraries read the switch once: the second session would not compute as its card says."""
    with pytest.raises(MissingEnvironment):
        open_(files, "cuda", tmp_path, tf32=first)
    with pytest.raises(UsageFault, match="with TF32 already" if first else "without TF32 already"):
        open_(files, provider, tmp_path, tf32=not first)


def test_tf32_on_the_cpu_is_a_contradiction(files):
    with pytest.raises(UsageFault, match="--tf32 needs a GPU"):
        OrtSession(files["model.fp32.onnx"], None, precision="fp32", tf32=True)


def engine_places(monkeypatch, place, graphs=("a" * 64, "b" * 64), gpu=GPU, **changes):
    """Return where graphs of these digests have their engines."""
    monkeypatch.setattr("runtime.machine.driver.probe", lambda: gpu)
    options, _ = options_of(PROVIDERS["tensorrt"], place, changes.get("tf32", False))
    found = [options(digest) for digest in graphs]
    places = [Path(each["trt_engine_cache_path"]) for each in found]
    (timings,) = {Path(each["trt_timing_cache_path"]) for each in found}
    assert {each.parent for each in places} == {timings}
    assert timings.parent == place / "engines"
    assert {each.stat().st_mode & 0o777 for each in [timings, *places]} == {0o700}
    return set(places)


OTHER_GPUS = [replace(GPU, uuid="cd" * 16), replace(GPU, name="Thor"), replace(GPU, cuda="12.8")]


@pytest.mark.parametrize("other", OTHER_GPUS, ids=["uuid", "name", "cuda"])
def test_engines_of_the_tensorrt_provider_are_of_one_device(monkeypatch, tmp_path, other):
    first = engine_places(monkeypatch, tmp_path)
    assert first == engine_places(monkeypatch, tmp_path)
    assert not first & engine_places(monkeypatch, tmp_path, gpu=other)


def test_engines_of_the_tensorrt_provider_are_of_one_graph_with_its_weights(files, task, tmp_path, monkeypatch):
    """It tells graphs apart by the names of their tensors alone: the next version of a network has the same."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnTheGpu)
    weight, bias, *_ = task
    for each in (weight, 2 * weight):
        graphs = {"model.fp32.onnx": graph(FORWARD, each, bias), "model.fp32.grad.onnx": graph(GRADIENT, each, bias)}
        open_(files | graphs, "tensorrt", tmp_path).close()
    assert len([each for each in (tmp_path / "engines").glob("*/*") if each.is_dir()]) == 4


def test_engines_of_the_tensorrt_provider_with_tf32_are_others(monkeypatch, tmp_path, gpu_not_used_yet):
    first = engine_places(monkeypatch, tmp_path)
    gpu_not_used_yet()
    assert not first & engine_places(monkeypatch, tmp_path, tf32=True)


@pytest.mark.parametrize("which", ["of the device", "of a graph"])
def test_a_place_that_others_may_write_to_is_refused(monkeypatch, tmp_path, which):
    place = min(engine_places(monkeypatch, tmp_path))
    (place.parent if which == "of the device" else place).chmod(0o777)
    with pytest.raises(MissingEnvironment, match="a directory that only you can write to"):
        engine_places(monkeypatch, tmp_path)


def test_the_cpu_asks_for_no_place_to_keep_engines(files, task, monkeypatch):
    monkeypatch.setattr("runtime.tensorrt.store.engines_directory", lambda state: pytest.fail("asked"))
    OrtSession(files["model.fp32.onnx"], None, precision="fp32").logits(task[2])

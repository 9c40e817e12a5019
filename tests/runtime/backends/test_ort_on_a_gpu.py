"""ONNX Runtime's CUDA and TensorRT providers: never another one in their place.

The stand-in does what onnxruntime-gpu does without a word: it lists providers that do not work, and falls back.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from runtime.backends.ort import OrtSession
from runtime.backends.providers import PROVIDERS
from runtime.errors import MissingEnvironment, OutOfMemory, UsageFault
from runtime.machine.tf32 import SWITCH
from tests.runtime.backends.fake_onnxruntime import CPU, GPU, open_
from tests.tiny import FORWARD, GRADIENT, graph

ON_GPU = ["cuda", "tensorrt"]


@pytest.mark.parametrize("provider", ON_GPU)
def test_a_provider_that_works_is_named_with_its_device(runtime, files, task, tmp_path, provider):
    runtime(PROVIDERS[provider].name)
    session = open_(files, provider, tmp_path)
    card = session.card()
    assert (card.backend, card.provider, card.device, card.tf32) == ("ort", provider, "Orin", False)
    assert card.rounds_apart
    cpu = onnxruntime.InferenceSession(files["model.fp32.onnx"], providers=[CPU])
    np.testing.assert_allclose(session.logits(task[2]), cpu.run(None, {"input": task[2]})[0], atol=1e-6)


@pytest.mark.parametrize("provider", ON_GPU)
def test_a_provider_that_is_listed_but_does_not_work_is_refused(runtime, files, tmp_path, provider):
    runtime()
    with pytest.raises(MissingEnvironment, match="does not work here"):
        open_(files, provider, tmp_path)


@pytest.mark.parametrize("provider", ON_GPU)
def test_a_graph_of_which_a_part_would_run_on_the_cpu_is_refused(runtime, files, tmp_path, provider):
    runtime(PROVIDERS[provider].name, leaves=True)
    with pytest.raises(MissingEnvironment, match=r"does not take the forward graph: .*assigned to the default CPU EP"):
        open_(files, provider, tmp_path)


@pytest.mark.parametrize("provider", ON_GPU)
def test_another_provider_never_takes_the_place_of_one_that_is_missing(files, tmp_path, provider, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(MissingEnvironment, match=PROVIDERS[provider].name) as caught:
        open_(files, provider, tmp_path)
    assert "onnxruntime-gpu" in caught.value.hint


@pytest.mark.parametrize("provider", ON_GPU)
def test_a_gpu_that_is_full_is_told_from_a_provider_that_does_not_work(runtime, files, tmp_path, provider, monkeypatch):
    fake = runtime(PROVIDERS[provider].name)

    def full(*given, **named):
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);")

    monkeypatch.setattr(fake, "InferenceSession", full)
    with pytest.raises(OutOfMemory, match="forward graph does not fit the memory: CUDA failure 2"):
        open_(files, provider, tmp_path)


def test_without_a_driver_the_driver_is_to_blame(runtime, files, tmp_path, monkeypatch):
    fake = runtime("CUDAExecutionProvider")

    def nothing():
        raise MissingEnvironment("there is no CUDA driver here")

    monkeypatch.setattr("runtime.machine.driver.probe", nothing)
    with pytest.raises(MissingEnvironment, match="no CUDA driver"):
        open_(files, "cuda", tmp_path)
    assert not fake.opened


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_off_unless_it_is_asked_for(runtime, files, tmp_path, tf32):
    fake = runtime("CUDAExecutionProvider", "TensorrtExecutionProvider")
    assert open_(files, "cuda", tmp_path, tf32=tf32).card().tf32 is tf32
    open_(files, "tensorrt", tmp_path, tf32=tf32)
    assert [options.get("use_tf32") for _, options, _ in fake.opened] == [str(int(tf32))] * 2 + [None] * 2
    assert {switch for *_, switch in fake.opened} == {"" if tf32 else "0"}


@pytest.mark.parametrize("provider", ON_GPU)
@pytest.mark.parametrize("first", [False, True])
def test_a_process_never_uses_the_gpu_with_tf32_and_without(runtime, files, tmp_path, provider, first):
    """NVIDIA's libraries read the switch once: the second session would not compute as its card says."""
    fake = runtime("CUDAExecutionProvider", "TensorrtExecutionProvider")
    open_(files, "cuda", tmp_path, tf32=first)
    with pytest.raises(UsageFault, match="with TF32 already" if first else "without TF32 already"):
        open_(files, provider, tmp_path, tf32=not first)
    assert len(fake.opened) == 2


def test_cuda_times_no_convolutions_anew_for_every_size_of_a_batch(runtime, files, tmp_path):
    fake = runtime("CUDAExecutionProvider")
    open_(files, "cuda", tmp_path)
    assert {options["cudnn_conv_algo_search"] for _, options, _ in fake.opened} == {"HEURISTIC"}


def test_tf32_that_the_environment_forbids_is_refused(runtime, files, tmp_path, monkeypatch):
    fake = runtime("CUDAExecutionProvider")
    monkeypatch.setenv(SWITCH, "0")
    with pytest.raises(UsageFault, match="forbids --tf32"):
        open_(files, "cuda", tmp_path, tf32=True)
    assert not fake.opened


def test_tf32_on_the_cpu_is_a_contradiction(files):
    with pytest.raises(UsageFault, match="--tf32 is of a GPU"):
        OrtSession(files["model.fp32.onnx"], None, precision="fp32", tf32=True)


def engine_places(runtime, monkeypatch, files, place, gpu=GPU, **changes):
    """Return where a session's two graphs have their engines, and where their timings are."""
    monkeypatch.setattr("runtime.machine.driver.probe", lambda: gpu)
    fake = runtime("TensorrtExecutionProvider")
    open_(files, "tensorrt", place, **changes)
    found = [options for _, options, _ in fake.opened]
    assert {options["trt_engine_cache_enable"] for options in found} == {"1"}
    places = [Path(options["trt_engine_cache_path"]) for options in found]
    (timings,) = {Path(options["trt_timing_cache_path"]) for options in found}
    assert {each.parent for each in places} == {timings}
    assert timings.parent == place / "engines"
    assert {each.stat().st_mode & 0o777 for each in [timings, *places]} == {0o700}
    return set(places)


OTHER_GPUS = [replace(GPU, uuid="cd" * 16), replace(GPU, name="Thor"), replace(GPU, cuda="12.8")]


@pytest.mark.parametrize("other", OTHER_GPUS, ids=["uuid", "name", "cuda"])
def test_engines_of_the_tensorrt_provider_are_of_one_device(runtime, monkeypatch, files, tmp_path, other):
    first = engine_places(runtime, monkeypatch, files, tmp_path)
    assert first == engine_places(runtime, monkeypatch, files, tmp_path)
    assert not first & engine_places(runtime, monkeypatch, files, tmp_path, other)


def test_engines_of_the_tensorrt_provider_are_of_one_graph_with_its_weights(
    runtime, monkeypatch, files, task, tmp_path
):
    """It tells graphs apart by the names of their tensors alone: the next version of a network has the same."""
    first = engine_places(runtime, monkeypatch, files, tmp_path)
    assert len(first) == 2
    weight, bias, *_ = task
    again = {
        "model.fp32.onnx": graph(FORWARD, 2 * weight, bias),
        "model.fp32.grad.onnx": graph(GRADIENT, 2 * weight, bias),
    }
    assert not first & engine_places(runtime, monkeypatch, again, tmp_path)


def test_engines_of_the_tensorrt_provider_with_tf32_are_others(runtime, monkeypatch, files, tmp_path, gpu_not_used_yet):
    first = engine_places(runtime, monkeypatch, files, tmp_path)
    gpu_not_used_yet()
    assert not first & engine_places(runtime, monkeypatch, files, tmp_path, tf32=True)


@pytest.mark.parametrize("which", ["of the device", "of a graph"])
def test_a_place_that_others_may_write_to_is_refused(runtime, monkeypatch, files, tmp_path, which):
    place = min(engine_places(runtime, monkeypatch, files, tmp_path))
    for each in [place.parent] if which == "of the device" else place.parent.iterdir():
        each.chmod(0o777)
    with pytest.raises(MissingEnvironment, match="not yours alone"):
        open_(files, "tensorrt", tmp_path)


def test_the_cpu_asks_for_no_place_to_keep_engines(files, task, monkeypatch):
    monkeypatch.setattr("runtime.backends.providers.engines_directory", lambda state: pytest.fail("asked"))
    OrtSession(files["model.fp32.onnx"], None, precision="fp32").logits(task[2])

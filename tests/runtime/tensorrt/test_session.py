"""TrtSession over a strict stand-in of TensorRT that computes with ONNX Runtime; no GPU has run it yet."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from export.tensorrt import build
from runtime.attacks.losses import cross_entropy, dlr, linear, margin, one_hot
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import InputShape
from runtime.errors import BadModel, EngineFault, GraphRefused, OutOfMemory, UsageFault
from runtime.files import sha256
from runtime.machine.driver import CudaDevice
from runtime.suite.batch_halving import BatchHalving
from runtime.tensorrt.api import library_of
from runtime.tensorrt.memory import ALIGNMENT
from runtime.tensorrt.session import Accelerator, EngineFactory, TrtSession
from runtime.tensorrt.store import EngineStore, Profile, profile_for
from tests.paths import ROOT
from tests.runtime.tensorrt import fake_tensorrt
from tests.runtime.tensorrt.fake_memory import FakeMemory
from tests.tiny import FORWARD, GRADIENT, graph

GPU = CudaDevice("Orin", "ab" * 16, "8.7", "12.6")


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(fake_tensorrt, "world", fake_tensorrt.World())
    monkeypatch.setattr("tests.runtime.tensorrt.fake_memory.world", fake_tensorrt.world)
    return fake_tensorrt.world


@pytest.fixture
def accelerator(world):
    return Accelerator(GPU, library_of(fake_tensorrt), FakeMemory())


@pytest.fixture
def factory(tmp_path):
    return EngineFactory(build, EngineStore(tmp_path / "engines", GPU.identity()), Profile(usual=8, most=8))


@pytest.fixture
def opened(files, factory, accelerator):
    """Return a function that opens a session on the tiny bundle's graphs, or others; it is closed in the end."""
    sessions = []

    def open_(forward=files["model.fp32.onnx"], gradient=files["model.fp32.grad.onnx"], **changes):
        how = {"factory": factory, "accelerator": accelerator} | changes
        session = TrtSession(forward, gradient, precision="fp32", **how)
        sessions.append(session)
        return session

    yield open_
    for session in sessions:
        session.close()


def ort(files):
    return OrtSession(files["model.fp32.onnx"], files["model.fp32.grad.onnx"], precision="fp32", threads=1)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 60])
def test_logits_values_and_gradients_are_those_of_the_graph_for_batches_of_any_size(opened, files, task, n):
    session, reference = opened(), ort(files)
    images, label = task[2][:n], one_hot(task[3][:n], 3)
    np.testing.assert_allclose(session.logits(images), reference.logits(images), atol=1e-6)
    for loss in (cross_entropy(label), margin(label), dlr(label), linear(label, label[::-1] - label)):
        ours, theirs = session.loss_gradient(images, loss), reference.loss_gradient(images, loss)
        for mine, its in zip(ours, theirs, strict=True):
            assert mine.shape == its.shape
            np.testing.assert_allclose(mine, its, atol=1e-6)


def test_what_was_answered_before_is_not_changed_by_the_next_question(opened, task):
    session = opened()
    first = session.logits(task[2][:5])
    kept = first.copy()
    session.logits(task[2][5:10])
    np.testing.assert_array_equal(first, kept)


def ask_both(session, task):
    session.logits(task[2])
    session.loss_gradient(task[2], cross_entropy(one_hot(task[3], 3)))


def test_the_card_names_graph_engine_and_device(opened, files, factory):
    card = opened().card()
    engines = {sha256(path.read_bytes()) for path in factory.store.directory.glob("*.engine")}
    assert (card.backend, card.provider, card.device, card.tf32) == ("tensorrt", "tensorrt", "Orin", False)
    assert card.sha256 == ort(files).card().sha256
    assert card.rounds_apart
    assert not ort(files).card().rounds_apart
    assert card.engine_sha256 in engines
    assert len(engines) == 2


def nothing_is_left(world, memory):
    """Neither what TensorRT made, nor memory, nor the stream that it was used in."""
    return not any(world.alive.values()) and not memory.arrays and not memory.stream


def test_everything_is_let_go_and_once(opened, world, accelerator, task):
    session = opened()
    ask_both(session, task)
    assert not nothing_is_left(world, accelerator.memory)
    session.close()
    session.close()
    assert nothing_is_left(world, accelerator.memory)
    with pytest.raises(EngineFault, match="closed"):
        session.logits(task[2])


AT_THE_END = """
import atexit
from tests.runtime.tensorrt.test_session import *
import tempfile
from pathlib import Path
from tests.tiny import linear_task
weight, bias, images, _ = linear_task()
store = EngineStore(Path(tempfile.mkdtemp()) / "engines", GPU.identity())
factory = EngineFactory(build, store, Profile(usual=8, most=8))
memory = FakeMemory()
atexit.register(lambda: print(nothing_is_left(fake_tensorrt.world, memory)))
session = TrtSession(
    graph(FORWARD, weight, bias),
    None,
    precision="fp32",
    factory=factory,
    accelerator=Accelerator(GPU, library_of(fake_tensorrt), memory),
)
session.logits(images)
"""


def test_the_end_of_the_process_lets_go_too():
    result = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == ["True"]


OPENING = ["load", "context", "build", "builder", "profile", "runtime"]


@pytest.mark.parametrize("what", OPENING)
def test_a_session_that_cannot_be_opened_leaves_nothing_behind(opened, world, accelerator, what):
    world.broken[what] = f"no {what} today"
    with pytest.raises(EngineFault, match=f"no {what} today"):
        opened()
    assert nothing_is_left(world, accelerator.memory)


@pytest.mark.parametrize("what", OPENING)
def test_memory_that_runs_out_in_opening_is_told_from_other_failures(opened, world, accelerator, what):
    world.broken[what] = "Error Code 2: OutOfMemory (Requested size was 4 bytes.)"
    with pytest.raises(OutOfMemory, match="OutOfMemory"):
        opened()
    assert world.builds == (what in ("load", "context"))  # an engine that does not fit is not built again
    assert nothing_is_left(world, accelerator.memory)


def room_for(rows):
    """Return the bytes that both engines take for so many images: their tensors, and what they work in."""
    return rows * (4 * (16 + 3 + 3 + 4 + 3 + 1 + 16) + fake_tensorrt.WORKING) + ALIGNMENT


@pytest.mark.parametrize("fits", [1, 2, 5])
def test_batches_are_halved_until_they_fit_to_the_same_answers(opened, files, accelerator, task, fits, capsys):
    session, loss = BatchHalving(opened()), cross_entropy(one_hot(task[3], 3))
    accelerator.memory.room = room_for(fits)
    logits, (z, _, gradient) = session.logits(task[2]), session.loss_gradient(task[2], loss)
    reference = ort(files).loss_gradient(task[2], loss)
    np.testing.assert_allclose(logits, reference[0], atol=1e-6)
    np.testing.assert_allclose(z, reference[0], atol=1e-6)
    np.testing.assert_allclose(gradient, reference[2], atol=1e-6)
    assert session.largest <= fits
    assert accelerator.memory.largest <= room_for(fits)
    assert "memory ran out" in capsys.readouterr().err


def test_not_even_one_image_that_fits_is_said_and_nothing_is_held(opened, accelerator, task):
    session = BatchHalving(opened())
    accelerator.memory.room = 100
    with pytest.raises(OutOfMemory, match="a single image does not fit"):
        session.logits(task[2])
    assert not accelerator.memory.arrays


def test_small_batches_take_little_memory_and_larger_ones_more(opened, accelerator, task):
    session = opened()
    session.logits(task[2][:1])
    little = accelerator.memory.held()
    session.logits(task[2][:8])
    assert little < accelerator.memory.held() < 8 * little
    session.logits(task[2])
    assert accelerator.memory.largest == accelerator.memory.held()


def test_a_pass_that_runs_out_of_memory_holds_none_and_the_next_goes_on(opened, world, accelerator, task):
    session = opened()
    world.broken["run"] = "Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(OutOfMemory, match=r"forward graph does not run: .*out of memory"):
        session.logits(task[2])
    assert not accelerator.memory.arrays
    world.broken.clear()
    assert session.logits(task[2]).shape == (60, 3)


def test_what_breaks_the_gpu_is_said_once_and_all_is_let_go(opened, world, accelerator, task):
    session = opened()
    session.logits(task[2])
    accelerator.memory.broken = "CUDA: an illegal memory access was encountered"
    with pytest.raises(EngineFault, match="illegal memory access"):
        session.logits(task[2])
    session.close()
    assert nothing_is_left(world, accelerator.memory)


def test_a_pass_that_fails_carries_tensorrts_words_and_the_next_goes_on(opened, world, task):
    session = opened()
    world.broken["run"] = "Cask (CUDA launch failure)"
    with pytest.raises(EngineFault, match="forward graph does not run: Cask"):
        session.logits(task[2])
    world.broken.clear()
    assert session.logits(task[2]).shape == (60, 3)


def test_threads_share_a_session(opened, files, task):
    session, reference = opened(), ort(files).logits(task[2])
    answers, faults = {}, []

    def ask(start):
        try:
            answers[start] = session.logits(task[2][start : start + 20])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=ask, args=(start,)) for start in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    np.testing.assert_allclose(np.concatenate([answers[start] for start in (0, 20, 40)]), reference, atol=1e-6)


def test_images_of_another_shape_are_refused(opened):
    with pytest.raises(BadModel, match=r"takes input \[B, 1, 4, 4\]") as caught:
        opened().logits(np.zeros((2, 1, 5, 5), np.float32))
    assert "[2, 1, 5, 5]" in caught.value.hint


def test_without_a_gradient_graph_only_logits_are_answered(opened, task):
    session = opened(gradient=None)
    assert not session.card().differentiable
    session.logits(task[2])
    with pytest.raises(BadModel, match="no gradient graph"):
        session.loss_gradient(task[2], cross_entropy(one_hot(task[3], 3)))


def test_a_graph_with_other_names_is_refused(opened, files, task, world, accelerator):
    with pytest.raises(BadModel, match="the forward graph has no logits"):
        opened(graph(FORWARD.replace("logits", "scores"), *task[:2]))
    assert nothing_is_left(world, accelerator.memory)


SUMMED = """
<ir_version: 8, opset_import: ["" : 18]>
summed (float[B, 1, 4, 4] input) => (float[1, K] logits) <int64[1] batch = {0}> {
  flat = Flatten(input)
  each = Gemm(flat, w, b)
  logits = ReduceSum(each, batch)
}
"""


def test_an_output_that_is_not_one_row_an_image_is_refused(opened, task):
    with pytest.raises(BadModel, match="the forward graph has logits without a free batch"):
        opened(graph(SUMMED.replace("K]", "3]"), *task[:2]), None)


def test_graphs_of_images_of_two_sizes_are_refused(opened, files, task):
    other = "(float[B, 1, 2, 8] input,"
    with pytest.raises(BadModel, match="forward and gradient graph differ in input"):
        opened(gradient=graph(GRADIENT.replace("(float[B, 1, 4, 4] input,", other), *task[:2]))


def test_a_graph_that_asks_for_what_no_loss_has_is_refused(opened, task, factory, world):
    again = Accelerator(GPU, library_of(fake_tensorrt), FakeMemory())
    with pytest.raises(BadModel, match="the gradient graph asks for temperature"):
        opened(gradient=graph(GRADIENT.replace("label", "temperature"), *task[:2]), accelerator=again)


def test_a_graph_that_the_parser_refuses_is_refused_in_its_words(opened, files):
    with pytest.raises(GraphRefused, match="refuses the graph: Failed to parse the ONNX model") as caught:
        opened(files["model.fp32.onnx"][:-40])
    assert caught.value.exit_code == 3


def test_tf32_is_off_unless_it_is_asked_for_and_then_recorded(opened, factory, world, gpu_not_used_yet):
    assert not opened().card().tf32
    gpu_not_used_yet()
    again = Accelerator(GPU, library_of(fake_tensorrt), FakeMemory())
    session = opened(factory=replace(factory, tf32=True), accelerator=again)
    assert session.card().tf32
    assert world.builds == 4  # an engine without is no engine with


def test_a_process_that_used_the_gpu_without_tf32_refuses_an_engine_with_it(opened, factory, world):
    opened()
    again = Accelerator(GPU, library_of(fake_tensorrt), FakeMemory())
    with pytest.raises(UsageFault, match="without TF32 already"):
        opened(factory=replace(factory, tf32=True), accelerator=again)
    assert world.builds == 2


@pytest.mark.parametrize(("shape", "most"), [((3, 32, 32), 64), ((3, 224, 224), 27), ((3, 4000, 4000), 1)])
def test_large_images_come_in_smaller_batches(shape, most):
    channels, height, width = shape
    assert profile_for(InputShape(channels=channels, height=height, width=width)).most == most

"""OpenVINO on this CPU, beside ONNX Runtime: the real library, compiled graphs and answers."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from runtime.attacks.losses import cross_entropy, margin, one_hot
from runtime.backends.ort import OrtSession
from runtime.backends.table import open_session
from runtime.bundle.opening import open_bundle
from runtime.errors import BadModel, EngineFault, MissingEnvironment, OutOfMemory
from runtime.openvino import library, session
from runtime.openvino.library import F32, NARROW, PROVIDERS, Provider, load_core
from runtime.openvino.session import OvSession
from runtime.records.report import load_report
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, GRADIENT, HALVED, IN_BYTES, bundle_files, graph, linear_task

pytest.importorskip("openvino", reason="OpenVINO is not installed")

NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[B, 3, 16, 16] input) => (float[B, 5] logits) {
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (input, c)
  r = Relu(a)
  p = GlobalAveragePool(r)
  flat = Flatten(p)
  s = Mul(flat, scale)
  logits = Gemm(s, w, b)
}
"""
"""A convolution with enough products that an arithmetic shows."""


@pytest.fixture
def task():
    return linear_task()


@pytest.fixture
def net():
    random = np.random.default_rng(1)
    model = onnx.parser.parse_model(NET)
    arrays = {
        "c": random.normal(size=(32, 3, 3, 3)),
        "scale": np.full(1, 30.0),
        "w": random.normal(size=(32, 5)),
        "b": np.zeros(5),
    }
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return model.SerializeToString(), random.random((70, 3, 16, 16)).astype(np.float32)


def has(arithmetic):
    return arithmetic.capability in load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def both(task, forward=FORWARD, gradient=GRADIENT, **named):
    graphs = graph(forward, *task[:2]), gradient and graph(gradient, *task[:2])
    return OvSession(*graphs, precision="fp32", **named), OrtSession(*graphs, precision="fp32")


def test_logits_values_and_gradients_are_those_of_onnx_runtime(task):
    ours, theirs = both(task)
    label = one_hot(task[3], 3).astype(np.float32)
    np.testing.assert_allclose(ours.logits(task[2]), theirs.logits(task[2]), atol=1e-5)
    for loss in (cross_entropy(label), margin(label)):
        for mine, its in zip(ours.loss_gradient(task[2], loss), theirs.loss_gradient(task[2], loss), strict=True):
            np.testing.assert_allclose(mine, its, atol=1e-5)


def test_an_image_is_answered_the_same_to_the_bit_in_any_batch(net):
    forward, images = net
    ours = OvSession(forward, None, precision="fp32")
    whole = ours.logits(images)
    for size in (1, 2, 7, 16, 33):
        parts = [ours.logits(images[start : start + size]) for start in range(0, len(images), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert ours.logits(images[:0]).shape == (0, 5)


def test_pieces_of_a_batch_run_side_by_side_to_the_same_bits(net, monkeypatch):
    forward, images = net
    monkeypatch.setattr(session, "cores", lambda: 1)
    alone = OvSession(forward, None, precision="fp32").logits(images)
    monkeypatch.setattr(session, "cores", lambda: 3)
    monkeypatch.setattr(session, "PIECE", 4)
    assert OvSession(forward, None, precision="fp32").logits(images).tobytes() == alone.tobytes()


def test_float32_is_computed_unless_another_type_is_asked_for_by_name(net):
    """OpenVINO itself takes bfloat16 on a CPU that has it."""
    forward, images = net
    ours = OvSession(forward, None, precision="fp32")
    exact = OrtSession(forward, None, precision="fp32").logits(images)
    assert np.abs(ours.logits(images) - exact).max() < 1e-5 * np.abs(exact).max()
    assert ours.card().device.endswith("computing in f32")
    assert ours.card().facts.computes_in == "float32"


def test_a_device_that_does_not_tell_is_held_for_what_it_was_asked_and_not_for_float32(net, monkeypatch):
    """As an NPU may: its compiled graph has operations without a word on their arithmetic."""
    if not has(NARROW[0]):
        pytest.skip("this CPU computes in no narrower type")
    monkeypatch.setattr(session, "TOLD", "nowhere")
    card = OvSession(net[0], None, precision="fp32", provider=f"cpu-{NARROW[0].name}").card()
    assert card.facts.computes_in == NARROW[0].computes_in
    assert card.device.endswith(f"computing in {NARROW[0].name}")


@pytest.mark.parametrize("arithmetic", NARROW)
def test_a_narrower_type_is_in_the_provider_the_device_and_the_facts_and_shows_in_the_logits(net, arithmetic):
    if not has(arithmetic):
        with pytest.raises(MissingEnvironment, match=f"does not compute in {arithmetic.name}"):
            OvSession(net[0], None, precision="fp32", provider=f"cpu-{arithmetic.name}")
        return
    forward, images = net
    ours = OvSession(forward, None, precision="fp32", provider=f"cpu-{arithmetic.name}")
    card = ours.card()
    assert card.provider == f"cpu-{arithmetic.name}"
    assert arithmetic.name in card.device.partition("computing in ")[2].split(", ")
    assert card.facts.computes_in == arithmetic.computes_in
    exact = OrtSession(forward, None, precision="fp32").logits(images)
    apart = np.abs(ours.logits(images) - exact).max() / np.abs(exact).max()
    assert 1e-5 < apart < 0.05


def test_what_computes_in_a_type_that_nobody_asked_for_is_refused(net, monkeypatch):
    narrow = next((each for each in NARROW if has(each)), None)
    if narrow is None:
        pytest.skip("this CPU computes in float32 alone")
    monkeypatch.setattr(
        session._Compiled,
        "_properties",
        lambda self, kind: {"INFERENCE_PRECISION_HINT": narrow.name, "EXECUTION_MODE_HINT": "ACCURACY"},
    )
    with pytest.raises(MissingEnvironment, match=f"in {narrow.name}, not in f32"):
        OvSession(net[0], None, precision="fp32")


def test_a_graph_in_float16_is_told_to_be_computed_in_float32_where_it_is(task):
    ours, theirs = both(task, HALVED, None)
    assert theirs.card().facts.computes_in == "float16"
    assert ours.card().facts.computes_in == "float32"
    np.testing.assert_allclose(ours.logits(task[2]), theirs.logits(task[2]), atol=1e-5)


def test_a_quantised_graph_stays_one_and_answers_as_onnx_runtime_does(task):
    ours, theirs = both(task, IN_BYTES, None)
    assert ours.card().facts.quantised
    np.testing.assert_allclose(ours.logits(task[2]), theirs.logits(task[2]), atol=0.05)
    assert (ours.logits(task[2]).argmax(1) == theirs.logits(task[2]).argmax(1)).mean() > 0.95


def test_a_device_without_batches_runs_every_image_by_itself(task, monkeypatch):
    monkeypatch.setitem(PROVIDERS, "cpu", Provider("CPU", F32, any_batch=False))
    ours, theirs = both(task)
    np.testing.assert_allclose(ours.logits(task[2]), theirs.logits(task[2]), atol=1e-5)
    assert not ours.card().differentiable
    assert ours.card().gradient_sha256 is None
    assert not ours.batching((1, 4, 4)).full
    with pytest.raises(BadModel, match="runs no gradient graph"):
        ours.loss_gradient(task[2], cross_entropy(one_hot(task[3], 3)))


def test_a_device_that_is_not_there_is_told_with_those_that_are(task):
    for provider in ("gpu", "npu-f16"):
        if PROVIDERS[provider].device in {name.partition(".")[0] for name in load_core().available_devices}:
            continue
        with pytest.raises(MissingEnvironment, match="finds no") as error:
            both(task, provider=provider)
        assert "CPU" in error.value.hint


def test_openvino_that_is_not_installed_is_told_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingEnvironment, match="OpenVINO is missing") as error:
        library.load_core.__wrapped__()
    assert "[openvino]" in error.value.hint


def test_a_graph_that_openvino_does_not_compile_is_told_in_its_words_alone():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]> '
        "g (float[B, 4] input) => (float[B, B] logits) { r = Relu(input) logits = com.microsoft.CDist(r, input) }"
    )
    with pytest.raises(BadModel) as error:
        OvSession(model.SerializeToString(), None, precision="fp32")
    assert "com.microsoft.CDist" in error.value.message
    assert "Exception from" not in error.value.message


def test_wrong_shapes_wrong_names_and_a_closed_session_are_typed_errors(task):
    ours, _ = both(task)
    with pytest.raises(BadModel, match="the forward graph failed"):
        ours.logits(np.zeros((2, 1, 5, 5), np.float32))
    with pytest.raises(BadModel, match="has no gradient, label, value"):
        OvSession(graph(FORWARD, *task[:2]), graph(FORWARD, *task[:2]), precision="fp32")
    ours.close()
    ours.close()
    with pytest.raises(EngineFault, match="closed"):
        ours.logits(task[2])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("CL_OUT_OF_RESOURCES")])
def test_memory_that_runs_out_is_told_as_such_and_the_session_can_be_asked_again(task, monkeypatch, error):
    ours, theirs = both(task, gradient=None)
    infer = session._Compiled._infer

    def starved(self, outputs, feeds):
        if len(feeds["input"]) > 2:
            raise error
        return infer(self, outputs, feeds)

    monkeypatch.setattr(session._Compiled, "_infer", starved)
    with pytest.raises(OutOfMemory):
        ours.logits(task[2])
    np.testing.assert_allclose(ours.logits(task[2][:2]), theirs.logits(task[2][:2]), atol=1e-5)


class Starved:
    """A compiled model that finds no memory for its first request."""

    def __init__(self, model):
        self.model, self.asked = model, 0

    def create_infer_request(self):
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("std::bad_alloc")
        return self.model.create_infer_request()


def test_no_memory_for_another_request_after_memory_ran_out_is_told_as_such_too(task, monkeypatch):
    ours, theirs = both(task, gradient=None)
    ours._forward._model = Starved(ours._forward._model)
    with monkeypatch.context() as patch:
        patch.setattr(session._Compiled, "_infer", starved)
        with pytest.raises(OutOfMemory):
            ours.logits(task[2])
    with pytest.raises(OutOfMemory):
        ours.logits(task[2][:2])
    np.testing.assert_allclose(ours.logits(task[2][:2]), theirs.logits(task[2][:2]), atol=1e-5)


def starved(self, *given):
    raise MemoryError


STEPPED = (
    GRADIENT.replace("  flat = Flatten(input)", "  flat = Flatten(input)\n  nought = Sub(flat, flat)")
    .replace("Reshape(flat_gradient", "Reshape(kept")
    .replace(
        "  shape = Shape(input)",
        "  step = HardSigmoid <alpha = 1.0e18, beta = 0.0> (nought)\n  kept = Sub(flat_gradient, step)\n"
        "  shape = Shape(input)",
    )
)
"""Takes the step of 0 from every slope, which is 0: OpenVINO 2026.4 reads a beta of 0 as 0.5."""


def test_the_gradient_that_attacks_follow_is_right_whatever_openvino_makes_of_its_graph(tmp_path, task):
    for place, text in enumerate((GRADIENT, STEPPED)):
        files = {"model.fp32.onnx": graph(FORWARD, *task[:2]), "model.fp32.grad.onnx": graph(text, *task[:2])}
        bundle = open_bundle(write_bundle(tmp_path / str(place), {**bundle_files(task), **files}, n=60))
        ours, theirs = (
            open_session(bundle, precision="fp32", backend=backend, provider="cpu") for backend in ("openvino", "ort")
        )
        loss = cross_entropy(one_hot(task[3], 3).astype(np.float32))
        if not ours.card().differentiable:
            assert text is STEPPED
            continue
        np.testing.assert_allclose(
            ours.loss_gradient(task[2], loss)[2], theirs.loss_gradient(task[2], loss)[2], atol=1e-5
        )


def test_verdicts_are_those_of_onnx_runtime_image_by_image(tmp_path, task):
    bundle = write_bundle(tmp_path / "bundle", bundle_files(task), n=60)
    found = {}
    for backend in ("openvino", "ort"):
        out = tmp_path / backend
        asked = edgeproof("verify", bundle, "--backend", backend, "--attacks", "fgsm,pgd", "--out", out)
        assert asked.exit_code == 0, asked.stderr
        with np.load(out / "evidence.npz") as evidence:
            found[backend] = {name: evidence[name] for name in ("clean_prediction", "adversarial_prediction")}
    for name, ours in found["openvino"].items():
        np.testing.assert_array_equal(ours, found["ort"][name])
    artifact = load_report(tmp_path / "openvino").artifact
    assert (artifact.backend, artifact.provider) == ("openvino", "cpu")


STARVED = """
import resource, sys
import numpy as np
from pathlib import Path
from runtime.batches.halving import BatchHalving
from runtime.errors import OutOfMemory
from runtime.openvino.session import OvSession
session = OvSession(Path(sys.argv[1]).read_bytes(), None, precision="fp32")
x = np.random.default_rng(0).random((64, 3, 512, 512), np.float32)
first = session.logits(x[:2])
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 300 * 2**20,) * 2)
halving = BatchHalving(session)
try:
    answers = halving.logits(x)
except OutOfMemory as error:
    sys.exit(f"typed: {error}")
assert halving.largest and halving.largest < 64, halving.largest
assert answers[:2].tobytes() == first.tobytes()
print("fitted", halving.largest)
"""


@pytest.mark.slow  # how much OpenVINO keeps to itself differs from run to run: it may leave nothing for a single image
def test_memory_that_really_runs_out_halves_the_batch_to_the_same_bits_or_ends_in_the_error_for_it(net, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx.parser.parse_model(NET.replace("16, 16", "512, 512")).SerializeToString())
    with_arrays = onnx.load(model)
    with_arrays.graph.initializer.extend(onnx.load_from_string(net[0]).graph.initializer)
    onnx.save(with_arrays, model)
    result = subprocess.run([sys.executable, "-c", STARVED, str(model)], capture_output=True, text=True)
    told = result.stderr.splitlines()
    assert told[0] == "memory ran out with batches of 64; continuing with 32, which changes no verdict"
    if result.returncode:
        assert told[-1].startswith("typed: a single image does not fit in memory"), result.stderr
    else:
        assert "fitted" in result.stdout

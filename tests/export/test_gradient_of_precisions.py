"""What keeps an attack's gradient alive in fp16 and int8, on a small network that was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch import nn

import export.gradient
from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from export.network.to_onnx import to_onnx
from export.precision.calibrate import Calibration, in_int8
from export.precision.candidate import Candidate
from export.precision.half import in_float16
from export.precision.mixed import keep, layers
from export.precision.sensitivity import MOST, Accuracy, accuracy, chosen, ranked
from export.precision.table import PRECISIONS
from export.rules import RULES
from pipeline.data.sets import fashion_mini
from runtime.attacks import PGD
from runtime.bundle.manifest import InputShape
from runtime.errors import BadModel
from runtime.images import DATA_ROOT
from runtime.suite.campaign import Campaign
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.export.classifiers import LogSoftmax

if TYPE_CHECKING:
    from pathlib import Path

    from export.graph.passes import Prepared
    from runtime.images.image_set import ImageSet

EPS = 8 / 255
SHAPE = InputShape(channels=1, height=28, width=28)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 5, 2, 2)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)
        self.more = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(3))
        self.head = nn.Linear(16 * 7 * 7, 10)

    def forward(self, x: Any) -> Any:
        x = self.first((x - 0.3) / 0.35).relu()
        x = self.second(x).relu()
        for layer in self.more:
            x = layer(x).relu()
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return fashion_mini.load(DATA_ROOT).test


@pytest.fixture(scope="module")
def training() -> ImageSet:
    return fashion_mini.load(DATA_ROOT).train


@pytest.fixture(scope="module")
def trained(training: ImageSet) -> Prepared:
    """Train until the network is sure of itself: what underflows shows there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small()
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for step in range(300):
            rows = slice(64 * (step % 20), 64 * (step % 20) + 64)
            x, y = torch.from_numpy(training.as_float(rows)), torch.from_numpy(training.labels[rows])
            loss = nn.functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return to_onnx(network.eval(), SHAPE)


@pytest.fixture(scope="module")
def calibration(training: ImageSet) -> Calibration:
    return Calibration(training.rows(slice(5000, 5128)))


def feeds_of(images: ImageSet) -> dict[str, Any]:
    zeros = np.zeros((len(images), 10), np.float32)
    return {
        "input": images.as_float(slice(None)),
        "label": np.eye(10, dtype=np.float32)[images.labels],
        "target": zeros,
        "weights": np.tile(np.asarray([1, 0, 0, 0], np.float32), (len(images), 1)),
        "cotangent": zeros,
    }


def gradient_by_onnx(model: ModelProto, feeds: dict[str, Any]) -> Any:
    """Return the gradient as onnx's own evaluator has it, which rounds every value to float16 where it is one."""
    names = [info.name for info in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model, new_ops=[LogSoftmax]).run(None, feeds), strict=True))["gradient"]


def same_sign(found: Any, expected: Any) -> float:
    """Return the share of pixels whose gradient has the same sign, of those that matter to the exact one."""
    matters = np.abs(expected) > 1e-3 * np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    return float((np.sign(found) == np.sign(expected))[matters].mean())


def surest(forward: Prepared, images: ImageSet, n: int) -> ImageSet:
    logits = forward.logits(images.as_float(slice(0, 500)))
    own = logits[np.arange(500), images.labels[:500]]
    rivals = np.where(np.eye(10, dtype=bool)[images.labels[:500]], -np.inf, logits).max(axis=1)
    return images.rows(np.argsort(rivals - own)[:n])


def test_gradient_in_float16_underflows_without_the_scale_of_each_image_and_not_with_it(
    trained: Prepared, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = feeds_of(surest(trained, images, 16))
    expected = gradient_by_onnx(gradient_graph(trained), feeds)
    half = in_float16(trained)
    scaled = gradient_by_onnx(gradient_graph(half), feeds)
    monkeypatch.setattr(export.gradient, "_scaled_backward", export.gradient._backward)
    naive = gradient_by_onnx(gradient_graph(half), feeds)
    assert (np.abs(expected).max(axis=(1, 2, 3)) > 0).all()
    assert np.mean(naive == 0) > 0.5
    assert same_sign(naive, expected) < 0.6
    assert same_sign(scaled, expected) > 0.98
    np.testing.assert_allclose(
        np.abs(scaled).max(axis=(1, 2, 3)), np.abs(expected).max(axis=(1, 2, 3)), rtol=0.05, atol=0
    )


def test_scale_of_each_image_changes_nothing_for_a_cotangent_of_zero(trained: Prepared, images: ImageSet) -> None:
    feeds = feeds_of(images.rows(slice(0, 3)))
    feeds["weights"][:] = 0
    assert not gradient_by_onnx(gradient_graph(in_float16(trained)), feeds).any()


def asymmetric(forward: Prepared, images: ImageSet, directory: Path) -> Prepared:
    """Quantise as ONNX Runtime does by itself: uint8 activations, a quantiser instead of each ReLU."""

    class Once(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"input": images.as_float(slice(None))}])

        def get_next(self) -> Any:
            return next(self.left, None)

    source, target = directory / "float.onnx", directory / "int8.onnx"
    onnx.save(forward.model, source)
    quantize_static(source, target, Once(), activation_type=QuantType.QUInt8, extra_options={"QuantizeBias": False})
    return prepare(onnx.load(target))


def standing(forward: Prepared, images: ImageSet) -> float:
    target = Target(Candidate(forward).session, images, 10, 64, np.asarray)
    evidence = clean_pass(target, 0, Silent())
    return Campaign(target, evidence, EPS, 0, Silent()).attack(PGD, 0).accuracy


def test_a_gradient_without_the_clipping_mask_fakes_robustness_and_is_caught(
    trained: Prepared, images: ImageSet, calibration: Calibration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    int8, some = asymmetric(trained, calibration.images, tmp_path), images.rows(slice(0, 200))
    assert not [node for node in int8.model.graph.node if node.op_type == "Relu"]
    masked = standing(int8, some)
    monkeypatch.setitem(RULES, "QuantizeLinear", lambda emit, node, dy: {0: dy})
    unmasked = standing(int8, some)
    exact = standing(trained, some)
    assert abs(masked - exact) < 0.05
    assert unmasked > masked + 0.1


def test_int8_is_attacked_as_well_with_its_own_gradient_as_fp32_is(
    trained: Prepared, images: ImageSet, calibration: Calibration
) -> None:
    some = images.rows(slice(0, 200))
    assert abs(standing(in_int8(trained, calibration), some) - standing(trained, some)) < 0.05


def test_gradient_of_int8_is_computed_in_float32(trained: Prepared, calibration: Calibration) -> None:
    model = gradient_graph(in_int8(trained, calibration))
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    products = [n for n in model.graph.node if n.name.startswith("grad/") and n.op_type in ("Conv", "ConvTranspose")]
    assert len(products) == 5
    assert {kinds.get(n.output[0], helper.np_dtype_to_tensor_dtype(np.dtype("float32"))) for n in products} == {1}


def spoiled(forward: Prepared, value: str) -> Prepared:
    """Make one layer hard to quantise: what comes in by one channel times 500, its weights divided by as much."""
    copy = ModelProto()
    copy.CopyFrom(forward.model)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    makers = {node.output[0]: node for node in copy.graph.node}
    layer = makers[value]
    before = makers[makers[layer.input[0]].input[0]]
    factor = np.ones(8, np.float32)
    factor[0] = 500
    for node, shape in ((before, (-1, 1, 1, 1)), (layer, (1, -1, 1, 1))):
        scale = factor if node is before else 1 / factor
        weight = tensors[node.input[1]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * scale.reshape(shape), weight.name))
    bias = tensors[before.input[2]]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * factor, bias.name))
    return prepare(copy)


def test_a_layer_that_int8_spoils_is_found_and_kept_in_float16(
    trained: Prepared, images: ImageSet, calibration: Calibration
) -> None:
    known = layers(trained)
    assert list(known) == ["first", "second", "more.0", "more.1", "more.2", "head"]
    hard = spoiled(trained, known["second"])
    plain = in_int8(hard, calibration)
    held = images.rows(slice(0, 200))
    single, quantized = Candidate(hard), Candidate(plain)
    exact = accuracy(single, held, EPS)
    assert exact.lost(accuracy(quantized, held, EPS)) > 0.05
    names, candidate = chosen(quantized, single, held, EPS)
    assert next(name for name, _ in ranked(plain, single, held)) == names[0] == "second"
    assert exact.lost(accuracy(candidate, held, EPS)) <= MOST
    mixed = candidate.forward.model
    assert to_bytes(mixed) == to_bytes(keep(plain, hard, names).model)
    quantised = sum(node.op_type == "QuantizeLinear" for node in plain.model.graph.node)
    assert sum(node.op_type == "QuantizeLinear" for node in mixed.graph.node) == quantised - len(names)
    kinds = {info.name: info.type.tensor_type.elem_type for info in mixed.graph.value_info}
    assert kinds[known["second"]] == helper.np_dtype_to_tensor_dtype(np.dtype("float16"))


@pytest.mark.parametrize("n", [100, 200, 500])
def test_one_point_is_no_more_than_a_point(n: int) -> None:
    for right in range(n // 100, n + 1):
        fewer = Accuracy((right - n // 100) / n, 0.0)
        assert Accuracy(right / n, 0.0).lost(fewer) <= MOST
        assert Accuracy((right + 1) / n, 0.0).lost(fewer) > MOST


def test_nothing_is_kept_where_int8_costs_little(trained: Prepared, images: ImageSet, calibration: Calibration) -> None:
    held = images.rows(slice(0, 200))
    single, quantized = Candidate(trained), Candidate(in_int8(trained, calibration))
    assert accuracy(single, held, EPS).lost(accuracy(quantized, held, EPS)) <= MOST
    assert chosen(quantized, single, held, EPS) == ((), quantized)


def test_layers_kept_by_name_are_recorded(trained: Prepared, calibration: Calibration) -> None:
    named = Calibration(calibration.images, keep=("first", "head"))
    candidate, record = PRECISIONS["int8"].make(Candidate(trained), named)
    assert record is not None
    assert record.kept_fp16 == ("first", "head")
    assert sum(node.op_type == "QuantizeLinear" for node in candidate.forward.model.graph.node) == 4
    with pytest.raises(BadModel, match=r"no layer 'second\.5'"):
        PRECISIONS["int8"].make(Candidate(trained), Calibration(calibration.images, keep=("second.5",)))


def test_an_int8_that_quantises_nothing_is_refused(trained: Prepared, calibration: Calibration) -> None:
    every = Calibration(calibration.images, keep=tuple(layers(trained)))
    with pytest.raises(BadModel, match="quantises nothing"):
        PRECISIONS["int8"].make(Candidate(trained), every)

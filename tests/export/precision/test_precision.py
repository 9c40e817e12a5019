"""fp16 and int8 graphs: what is in them, and that they answer as the network they were made of."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, checker

from export.graph.passes import opset_of, prepare
from export.network.export_network import export_network
from export.precision.calibrate import METHODS, Calibration, calibration_images, in_int8
from export.precision.candidate import Candidate
from export.precision.half import in_float16
from export.precision.table import PRECISIONS, shipping
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import InputShape
from runtime.bundle.opening import open_bundle
from runtime.errors import BadData, BadModel, UsageFault
from runtime.images.image_set import ImageSet
from tests.export.classifiers import SIDE, classifier, evaluate, exact_session
from tests.export.network.test_export_network import CLAIMS, SHAPE, Tiny

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

    from tests.export.classifiers import Exported

RANDOM = np.random.default_rng(0)


def some_images(n: int, *shape: int, classes: int = 10, start: int = 0) -> ImageSet:
    random = np.random.default_rng(start)
    images = random.integers(0, 256, (n, *shape), dtype=np.uint8)
    return ImageSet(f"set {start}", images, random.integers(0, classes, n), np.arange(start, start + n))


CALIBRATION = Calibration(some_images(48, 1, SIDE, SIDE))


def weight_bytes(model: ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def types_of(model: ModelProto) -> dict[str, int]:
    return {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}


def check_interface(model: ModelProto) -> None:
    checker.check_model(model, full_check=True)
    assert opset_of(model) in range(18, 21)
    assert [(i.name, i.type.tensor_type.elem_type) for i in (model.graph.input[0], model.graph.output[0])] == [
        ("input", TensorProto.FLOAT),
        ("logits", TensorProto.FLOAT),
    ]


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_precision_takes_and_gives_float32(name: str, exported: Exported) -> None:
    forward = PRECISIONS[name].make(Candidate(exported.forward), CALIBRATION)[0].forward.model
    check_interface(forward)
    x = exported.feeds(32)["input"]
    expected = evaluate(exported.forward.model, {"input": x})["logits"]
    (found,) = exact_session(forward.SerializeToString()).run(["logits"], {"input": x})
    assert np.abs(found - expected).max() <= PRECISIONS[name].limits.logit * np.abs(expected).max()


def test_every_operation_between_the_casts_is_in_float16(exported: Exported) -> None:
    model = in_float16(exported.forward).model
    types = types_of(model)
    nodes = list(model.graph.node)
    first, last = (index for index, node in enumerate(nodes) if node.op_type == "Cast")
    assert last == len(nodes) - 1
    assert {types[name] for node in nodes[first:last] for name in node.output} == {TensorProto.FLOAT16}
    assert weight_bytes(model) < 0.51 * weight_bytes(exported.forward.model)


def test_named_nodes_alone_are_cast(exported: Exported) -> None:
    layers = [node for node in exported.forward.model.graph.node if node.op_type == "Conv"][2:4]
    names = [node.output[0] for node in layers]
    model = in_float16(exported.forward, names).model
    types = types_of(model)
    half = {name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT16}
    assert set(names) <= half
    assert {node.op_type for node in model.graph.node if set(node.output) & half} == {"Conv", "Cast"}


def test_what_an_operation_takes_in_float32_alone_stays_float32() -> None:
    model = classifier(
        [
            "c = Conv <kernel_shape=[1,1]> (input, w)",
            'r = Resize <mode="nearest"> (c, , scales)',
            "f = Flatten (r)",
            "logits = MatMul (f, head)",
        ],
        image=(2, 3, 3),
        classes=3,
        constants={
            "w": RANDOM.standard_normal((2, 2, 1, 1)),
            "scales": np.asarray([1, 1, 2, 2], np.float32),
            "head": RANDOM.standard_normal((72, 3)),
        },
        dtype=np.float32,
    )
    half = in_float16(prepare(model)).model
    x = RANDOM.random((4, 2, 3, 3), dtype=np.float32)
    expected = evaluate(model, {"input": x})["logits"]
    np.testing.assert_allclose(evaluate(half, {"input": x})["logits"], expected, rtol=0, atol=2e-2)
    assert types_of(half)["r"] == TensorProto.FLOAT16


def test_constants_beyond_float16_become_its_largest_number() -> None:
    nodes = ["f = Flatten (input)", "m = MatMul (f, head)", "logits = Clip (m, low)"]
    constants = {"head": RANDOM.standard_normal((12, 3)), "low": -1e30}
    model = classifier(nodes, image=(3, 2, 2), classes=3, constants=constants, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = in_float16(prepare(model)).model
    x = RANDOM.random((4, 3, 2, 2), dtype=np.float32)
    expected = evaluate(model, {"input": x})["logits"]
    np.testing.assert_allclose(evaluate(half, {"input": x})["logits"], expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_int8_is_explicit_symmetric_and_by_channel(method: str, exported: Exported) -> None:
    model = in_int8(exported.forward, Calibration(CALIBRATION.images, method)).model
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == sum(node.op_type in ("Conv", "Gemm") for node in exported.forward.model.graph.node)
    for layer in layers:
        image, weight = (makers[name] for name in layer.input[:2])
        assert (image.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert makers[image.input[0]].op_type == "QuantizeLinear"
        integers, scale, zero = (stored[name] for name in weight.input)
        assert integers.data_type == zero.data_type == TensorProto.INT8
        assert len(scale.dims) == 1
        assert scale.dims[0] in integers.dims
        if len(layer.input) > 2:
            assert stored[layer.input[2]].data_type == TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert stored[node.input[1]].dims == []
            assert not np.frombuffer(stored[node.input[2]].raw_data, np.int8).any()
    assert weight_bytes(model) < 0.35 * weight_bytes(exported.forward.model)


def test_calibration_prints_and_logs_nothing(exported: Exported, capfd: Any, caplog: Any) -> None:
    in_int8(exported.forward, Calibration(CALIBRATION.images, "percentile"))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_calibration_images_are_none_that_is_judged() -> None:
    judged, more = some_images(20, 1, 4, 4), some_images(30, 1, 4, 4, start=1)
    mixed = ImageSet(
        "mixed",
        np.concatenate([judged.images, more.images]),
        np.concatenate([judged.labels, more.labels]),
        np.arange(50),
    )
    every, none = calibration_images(mixed, judged, 1000)
    assert every.ids.tolist() == list(range(20, 50))
    assert none is None
    used, held = calibration_images(mixed, judged, 10)
    assert held is not None
    assert len({*used.ids, *held.ids} - set(range(20))) == 20
    assert used.ids.tolist() == calibration_images(mixed, judged, 10)[0].ids.tolist()
    with pytest.raises(BadData, match="in the evaluation set"):
        calibration_images(judged, judged, 10)


def test_a_model_without_weights_cannot_be_quantised() -> None:
    model = classifier(["logits = Flatten (input)"], image=(3, 1, 1), classes=3, dtype=np.float32)
    with pytest.raises(BadModel, match="nothing to quantise"):
        in_int8(prepare(model), Calibration(some_images(4, 3, 1, 1)))


@pytest.mark.parametrize(
    ("names", "ships"),
    [(("fp32",), "fp32"), (("fp32", "fp16", "int8"), "fp16"), (("int8", "fp32"), "int8"), (("int8",), "int8")],
)
def test_what_ships_of_several(names: tuple[str, ...], ships: str) -> None:
    assert shipping(names) == ships


def test_bundle_of_three_precisions_says_what_each_is(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tiny().eval()
    calibration = Calibration(some_images(40, 2, 8, 8, classes=3, start=7), "percentile")
    manifest = export_network(
        network,
        shape=SHAPE,
        evaluation=some_images(40, 2, 8, 8, classes=3),
        claims=CLAIMS,
        out=tmp_path / "bundle",
        precisions=tuple(PRECISIONS),
        calibration=calibration,
    )
    bundle = open_bundle(tmp_path / "bundle")
    assert (bundle.manifest, manifest.ships) == (manifest, "fp16")
    assert {name: graph.calibration is not None for name, graph in manifest.graphs.items()} == {
        "fp32": False,
        "fp16": False,
        "int8": True,
    }
    used = manifest.graphs["int8"].calibration
    assert used is not None
    assert (used.method, used.data.n, used.data.sha256) == ("percentile", 40, calibration.images.sha256)
    for name, graph in manifest.graphs.items():
        assert graph.gradient
        OrtSession(bundle.read(graph.forward), bundle.read(graph.gradient), precision=name)
    card = bundle.read("MODEL_CARD.md").decode()
    assert "percentile on 40 images" in card
    assert used.data.sha256 in card
    assert "same prediction as the trained network, int8" in card


def test_int8_without_calibration_images_is_refused(exported: Exported) -> None:
    with pytest.raises(UsageFault, match="calibration"):
        PRECISIONS["int8"].make(Candidate(exported.forward), None)


def test_export_of_int8_without_calibration_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageFault):
        export_network(
            Tiny().eval(),
            shape=InputShape(channels=2, height=8, width=8),
            evaluation=some_images(4, 2, 8, 8, classes=3),
            claims=CLAIMS,
            out=tmp_path / "bundle",
            precisions=("int8",),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PRECISIONS)
def test_gradient_graph_of_every_precision_answers_as_the_graph_itself(name: str, exported: Exported) -> None:
    candidate = PRECISIONS[name].make(Candidate(exported.forward), CALIBRATION)[0]
    feeds = exported.feeds(16)
    logits = evaluate(candidate.forward.model, {"input": feeds["input"]})["logits"]
    answer = evaluate(candidate.gradient, feeds)
    # A value that lies between two integers of int8 goes to one in one graph, to the other in the other.
    tolerance = 1e-4 if name == "fp32" else 0.1 * PRECISIONS[name].limits.logit
    np.testing.assert_allclose(answer["logits"], logits, rtol=0, atol=tolerance * np.abs(logits).max())
    assert answer["gradient"].dtype == np.float32
    assert np.isfinite(answer["gradient"]).all()

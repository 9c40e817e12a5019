"""Models as ONNX Runtime quantises them and saves them optimised: judged as they came, differentiated written out."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from export import standard
from runtime.graph.facts import graph_facts
from tests.export.classifiers import torch_gradient
from tests.export.plain import BODY, PLAIN, WEIGHTS, X, check_as_torch, network, plain
from tests.export.strangers import command, gradient_of, packed, session_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.bundle.opening import Bundle

COTANGENT = np.random.default_rng(1).standard_normal((12, 4)).astype(np.float32)


class Pictures(CalibrationDataReader):
    """The plain images, one by one, as calibration wants them."""

    def __init__(self) -> None:
        self._rows: Iterator[Any] = iter(X)

    def get_next(self) -> Any:
        row = next(self._rows, None)
        return None if row is None else {"image": row[None]}


FORMS = {
    "bytes": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
    "signed": {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8},
    "by channel": {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8},
}


def quantised(save: Any, form: QuantFormat, **options: Any) -> Path:
    path: Path = save(plain())
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(path, path, Pictures(), quant_format=form, **options)
    finally:
        logging.disable(logging.NOTSET)
    return path


def optimised(path: Path, level: str) -> Path:
    """Save a model as ONNX Runtime has optimised it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    out = path.with_name("optimised.onnx")
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return out


def operations(bundle: Bundle) -> set[str]:
    (graph,) = bundle.manifest.graphs.values()
    return {node.op_type for node in onnx.load_from_string(bundle.read(graph.forward)).graph.node}


@pytest.mark.parametrize("form", FORMS)
def test_a_qoperator_model_is_judged_as_it_came_with_the_gradient_of_its_qdq_twin(
    form: str, data: Path, save: Any, tmp_path: Path
) -> None:
    bundles = [
        packed(quantised(save, each, reduce_range=True, **FORMS[form]), data, tmp_path / each.name)
        for each in (QuantFormat.QOperator, QuantFormat.QDQ)
    ]
    assert {"QLinearConv", "QLinearMatMul", "QLinearAdd"} <= operations(bundles[0])
    assert bundles[0].manifest.packed is not None
    assert any("QLinearConv" in change and "written out" in change for change in bundles[0].manifest.packed.changes)
    assert [list(bundle.manifest.graphs) for bundle in bundles] == [["int8"], ["int8"]]
    own, twin = (session_of(bundle) for bundle in bundles)
    step = np.unique(np.diff(np.unique(own.logits(X))))[0]
    np.testing.assert_allclose(own.logits(X), twin.logits(X), rtol=0, atol=2 * step)
    np.testing.assert_allclose(gradient_of(own, X, COTANGENT), gradient_of(twin, X, COTANGENT), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", [4, 16])
def test_integers_of_other_widths_are_judged_as_they_came(bits: int, data: Path, save: Any, tmp_path: Path) -> None:
    kinds: dict[str, Any] = {"weight_type": QuantType.QInt4} if bits == 4 else {
        "weight_type": QuantType.QInt16, "activation_type": QuantType.QUInt16}  # fmt: skip
    bundle = packed(
        quantised(save, QuantFormat.QDQ, extra_options={"UseQDQContribOps": True}, **kinds), data, tmp_path / "b"
    )
    assert list(bundle.manifest.graphs) == ["int8"]
    if bits == 16:
        check_near_torch(session_of(bundle))


def check_near_torch(session: Any) -> None:
    """Sixteen bits round so finely that the gradient is the float model's, but where a ReLU flips."""
    expected = torch_gradient(network, X, COTANGENT)
    found = gradient_of(session, X, COTANGENT)
    assert np.median(np.abs(found - expected).max((1, 2, 3)) / np.abs(expected).max((1, 2, 3))) < 1e-3


def test_standard_integers_of_sixteen_bits_are_kept_below_the_opset_that_has_them(
    data: Path, save: Any, tmp_path: Path
) -> None:
    nodes = ["q = QuantizeLinear (image, s, z)", "d = DequantizeLinear (q, s, z)"]
    body = [PLAIN[0].replace("(image", "(d"), *PLAIN[1:]]
    given = {**WEIGHTS, "s": np.float32(2**-16), "z": np.uint16(0)}
    bundle = packed(save(plain([*nodes, *body], opset=21, constants=given)), data, tmp_path / "bundle")
    (graph,) = bundle.manifest.graphs.values()
    kept = [
        node.domain for node in onnx.load_from_string(bundle.read(graph.forward)).graph.node if "Linear" in node.op_type
    ]
    assert kept == ["com.microsoft", "com.microsoft"]
    check_near_torch(session_of(bundle))


def test_a_saved_optimised_model_is_judged_as_it_came_with_the_gradient_of_torch(
    data: Path, save: Any, tmp_path: Path
) -> None:
    bundle = packed(optimised(save(plain()), "EXTENDED"), data, tmp_path / "bundle")
    assert "FusedConv" in operations(bundle)
    assert list(bundle.manifest.graphs) == ["fp32"]
    check_as_torch(session_of(bundle))


def test_other_precisions_of_a_saved_optimised_model_are_made_of_simple_operations(
    data: Path, save: Any, tmp_path: Path
) -> None:
    path = optimised(save(plain()), "EXTENDED")
    result = command("pack", path, "--data", data, "--out", tmp_path / "b", "--precision", "fp32,fp16")
    assert result.exit_code == 0, result.output
    forms = {name: onnx.load(tmp_path / "b" / f"model.{name}.onnx") for name in ("fp32", "fp16")}
    fused = {name: any(node.domain for node in model.graph.node) for name, model in forms.items()}
    assert fused == {"fp32": True, "fp16": False}


def distances(op: str) -> Any:
    nodes = [*BODY, "z = Add (m, b2)", f'scores = com.microsoft.{op} <metric="euclidean"> (z, places)']
    given = {**WEIGHTS, "places": 10 * np.eye(4, dtype=np.float32)}
    model = plain(nodes, constants=given)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def test_an_operation_that_onnxruntime_does_not_run_is_named(data: Path, save: Any, tmp_path: Path) -> None:
    result = command(
        "pack", save(distances("Distances")), "--data", data, "--out", tmp_path / "b", "--gradient", "none"
    )
    assert result.exit_code == 3, result.output
    assert "node 'scores' (Distances) of the domain com.microsoft" in result.stderr


def test_an_operation_nobody_can_write_out_is_named_with_its_domain_and_runs_without_gradient(
    data: Path, save: Any, tmp_path: Path
) -> None:
    model = distances("CDist")
    refused = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert refused.exit_code == 3, refused.output
    assert "node 'scores' (CDist): edgeproof has no derivative of 'CDist'" in refused.stderr
    assert "of the domain com.microsoft" in refused.stderr
    accepted = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle", "--gradient", "none")
    assert accepted.exit_code == 0, accepted.output


def test_a_writing_that_answers_otherwise_is_refused(
    data: Path, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_activation(emit: Any, part: Any) -> Any:
        return emit("Conv", *part.inputs[:2], **part.attributes("strides", "pads"))

    monkeypatch.setitem(standard.WRITTEN, ("com.microsoft", "FusedConv"), without_activation)
    path = optimised(save(plain()), "EXTENDED")
    result = command("pack", path, "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert "com.microsoft.FusedConv cannot be written out" in result.stderr
    assert "--gradient none" in result.stderr


def test_what_is_written_out_counts_as_quantised(data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(optimised(quantised(save, QuantFormat.QDQ), "EXTENDED"), data, tmp_path / "bundle")
    assert "QLinearConv" in operations(bundle)
    (graph,) = bundle.manifest.graphs.values()
    assert graph_facts(bundle.read(graph.forward)).quantised

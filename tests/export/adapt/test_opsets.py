"""Models of every opset, brought to one that edgeproof works with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from tests.export.plain import BODY, WEIGHTS, X, check_as_torch, plain, tensorflow_shaped
from tests.export.strangers import command, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 18, 20])
def test_model_in_the_shape_of_tensorflows_is_packed_from_opset_nine_on(
    opset: int, data: Path, save: Any, tmp_path: Path
) -> None:
    bundle = packed(save(tensorflow_shaped(opset)), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle))
    manifest = bundle.manifest
    assert manifest.packed is not None
    said = " / ".join(manifest.packed.changes)
    assert "batch of 1 made dynamic" in said
    assert "Softmax at its end cut off" in said
    assert "channels moved last" in said
    assert (manifest.packed.opset, manifest.packed.file) == (opset, "model.onnx")
    assert manifest.provenance is None
    assert (manifest.evaluation.n, manifest.ships, manifest.classes) == (12, "fp32", ("0", "1", "2", "3"))
    parity = manifest.graphs["fp32"].parity
    assert parity is not None
    assert parity.max_logit_error < 1e-5
    assert parity.median_gradient_error is None


@pytest.mark.parametrize("opset", [21, 23])
def test_model_of_a_newer_opset_is_brought_back(opset: int, data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(plain(opset=opset)), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle))
    assert bundle.manifest.packed is not None
    assert f"opset {opset} brought to 20" in bundle.manifest.packed.changes


NEWER = {
    "Swish": ["z = Add (m, b2)", "scores = Swish (z)"],
    "RMSNormalization": ["z = Add (m, b2)", "scores = RMSNormalization (z, b2)"],
    "Attention": ["z = Add (m, b2)", "a = Reshape (z, four)", "b = Attention (a, a, a)", "scores = Flatten (b)"],
}


@pytest.mark.parametrize("name", NEWER)
def test_operation_of_a_newer_opset_is_written_out(name: str, data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, *NEWER[name]], opset=24, constants={**WEIGHTS, "four": np.asarray([1, 1, 2, 2])})
    np.savez(data, x=X, y=onnxruntime_labels(model))
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert f"written out in opset 20: {name}" in bundle.manifest.packed.changes


def onnxruntime_labels(model: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": x[None]})[0] for x in X]).argmax(axis=1)


def test_node_of_a_newer_opset_without_a_way_back_is_refused(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "z = Add (m, b2)", "scores = TensorScatter (z, z)"], opset=24)
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert "node 'scores' (TensorScatter) of opset 24 has no form in opset 20" in result.stderr
    assert "export it again with opset 18 to 20" in result.stderr


def test_weights_quantised_in_blocks_are_refused_in_words(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = ["w = DequantizeLinear <axis=0, block_size=48> (i, s)", *BODY[:-1], "scores = MatMul (f, w)"]
    given = {**WEIGHTS, "i": np.ones((96, 4), np.int8), "s": np.ones((2, 4), np.float32)}
    result = command(
        "pack", save(plain(nodes, opset=21, constants=given)), "--data", data, "--out", tmp_path / "bundle"
    )
    assert result.exit_code == 3, result.output
    assert "node 'w' (DequantizeLinear) is quantised in blocks: opset 20 has none" in result.stderr

"""Models of every opset, brought to one that edgeproof works with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from tests.export.plain import B2, BODY, W1, WEIGHTS, X, check_as_torch, plain, tensorflow_shaped
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
    assert f"opset {opset} converted to 20" in bundle.manifest.packed.changes


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


def in_blocks(kind: str, axis: int, zero: bool) -> tuple[Any, Any]:
    """Return PLAIN with weights that opset 21 dequantises in blocks of two rows or columns, and these weights."""
    random = np.random.default_rng(3)
    sizes = (48, 4) if axis == 0 else (96, 2)
    stored = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind))
    low, high = (0, 15) if kind == "UINT4" else (-100, 100)
    whole, shift = random.integers(low, high, (96, 4)), random.integers(0, 7, sizes)
    scale = random.uniform(0.5, 1.5, sizes).astype(np.float32) / (20 * (high - low))
    text = f"w = DequantizeLinear <axis={axis}, block_size=2> ({'i, s, z' if zero else 'i, s'})"
    constants = {**WEIGHTS, "i": whole.astype(stored), "s": scale, **({"z": shift.astype(stored)} if zero else {})}
    model = plain([text, *BODY[:-1], "m = MatMul (f, w)", "scores = Add (m, b2)"], opset=21, constants=constants)
    return model, (whole - zero * shift.repeat(2, axis)).astype(np.float32) * scale.repeat(2, axis)


@pytest.mark.parametrize("kind", ["INT8", "INT16", "UINT4"])
@pytest.mark.parametrize(("axis", "zero"), [(0, True), (1, True), (-1, False)])
def test_weights_quantised_in_blocks_have_the_gradient_of_what_they_stand_for(
    kind: str, axis: int, zero: bool, save: Any, tmp_path: Path
) -> None:
    model, weights = in_blocks(kind, axis, zero)

    def function(x: Any) -> Any:
        w1, w2, b2 = (torch.from_numpy(array).to(x.dtype) for array in (W1, weights, B2))
        return F.conv2d(x, w1, stride=2, padding=1).relu().flatten(1) @ w2 + b2

    np.savez(tmp_path / "data.npz", x=X, y=function(torch.from_numpy(X)).argmax(dim=1).numpy())
    session = session_of(packed(save(model), tmp_path / "data.npz", tmp_path / "bundle"))
    assert session.card().facts.quantised
    check_as_torch(session, function=function)


@pytest.mark.parametrize(
    ("nodes", "name"),
    [
        (["q = QuantizeLinear <axis=1, block_size=2> (m, s, z)", "d = DequantizeLinear <block_size=2> (q, s, z)"], "q"),
        (["q = QuantizeLinear (m, one, z1)", "d = DequantizeLinear <axis=1, block_size=2> (q, s, z)"], "d"),
    ],
)
def test_activations_quantised_in_blocks_are_refused_in_words(
    nodes: list[str], name: str, data: Path, save: Any, tmp_path: Path
) -> None:
    given = {"s": np.ones((1, 2), np.float32), "z": np.zeros((1, 2), np.int8), "one": np.float32(1), "z1": np.int8(0)}
    model = plain([*BODY, *nodes, "scores = Add (d, b2)"], opset=21, constants={**WEIGHTS, **given})
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert f"node '{name}'" in result.stderr
    assert "is quantised in blocks: opset 20 has none" in result.stderr

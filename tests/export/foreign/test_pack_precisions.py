"""Models in several precisions: the one they come in, and those that `pack` makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto

from runtime.bundle.opening import open_bundle
from tests.export.classifiers import torch_gradient
from tests.export.plain import BODY, LABELS, WEIGHTS, X, check_as_torch, network, no_rule, plain
from tests.export.strangers import command, gradient_of, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path


def test_model_in_float16_ships_in_float16_and_is_differentiated_in_it(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain(kind=TensorProto.FLOAT16)
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert (bundle.manifest.ships, list(bundle.manifest.graphs)) == ("fp16", ["fp16"])
    session = session_of(bundle)
    original = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (half,) = original.run(None, {"image": X[:1].astype(np.float16)})
    # ONNX Runtime's CPU computes float16 graphs in float32 where it can.
    np.testing.assert_allclose(session.logits(X[:1]), half.astype(np.float32), rtol=0, atol=5e-3)
    cotangent = np.ones((12, 4), np.float32)
    expected = torch_gradient(network, X, cotangent)
    np.testing.assert_allclose(gradient_of(session, X, cotangent), expected, rtol=0, atol=2e-2)


def test_model_in_float64_is_brought_to_float32(data: Path, save: Any, tmp_path: Path) -> None:
    weight = np.random.default_rng(4).standard_normal((192, 4))
    model = plain(["f = Flatten (image)", "scores = MatMul (f, w)"], constants={"w": weight}, kind=TensorProto.DOUBLE)
    bundle = packed(save(model), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle), function=lambda x: x.flatten(1) @ torch.from_numpy(weight).float())
    assert bundle.manifest.packed is not None
    assert "float64 converted to float32" in bundle.manifest.packed.changes


def test_a_model_is_packed_in_three_precisions_calibrated_on_images_that_are_not_judged(
    data: Path, save: Any, tmp_path: Path
) -> None:
    more = np.random.default_rng(9).random((40, *X.shape[1:]), dtype=np.float32)
    np.savez(tmp_path / "train.npz", x=np.concatenate([X, more]), y=np.zeros(len(X) + 40, np.int64))
    asked = ["--precision", "fp32,fp16,int8", "--ships", "int8", "--calibration", tmp_path / "train.npz"]
    result = command("pack", save(plain()), "--data", data, "--out", tmp_path / "bundle", *asked, "--keep-fp16", "none")
    assert result.exit_code == 0, result.output
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert (set(manifest.graphs), manifest.ships) == ({"fp32", "fp16", "int8"}, "int8")
    used = manifest.graphs["int8"].calibration
    assert used is not None
    assert used.data.n == 40
    assert "ranges by minmax on 40 images" in result.stdout
    assert all(graph.gradient for graph in manifest.graphs.values())


def test_int8_of_a_model_without_a_rule_costs_what_it_does_clean(data: Path, save: Any, tmp_path: Path) -> None:
    others = np.random.default_rng(7).random(X.shape, dtype=np.float32)
    np.savez(tmp_path / "train.npz", x=others, y=LABELS)
    asked = ["--precision", "int8", "--calibration", tmp_path / "train.npz", "--gradient", "none"]
    result = command("pack", save(no_rule()), "--data", data, "--out", tmp_path / "bundle", *asked)
    assert result.exit_code == 0, result.output
    assert "plain int8, clean: " in result.stderr  # how far the measurement is
    assert "plain int8, on" in result.stderr
    assert "PGD" not in result.stderr
    graph = open_bundle(tmp_path / "bundle").manifest.graphs["int8"]
    assert graph.gradient is None
    assert graph.calibration is not None


def test_a_model_that_comes_quantised_is_packed_and_differentiated_as_it_is(
    data: Path, save: Any, tmp_path: Path
) -> None:
    constants = {**WEIGHTS, "scale": 0.01, "zero": np.uint8(10)}
    nodes = [
        "q = QuantizeLinear (image, scale, zero)",
        "p = DequantizeLinear (q, scale, zero)",
        BODY[0].replace("image", "p"),
        *BODY[1:],
        "scores = Add (m, b2)",
    ]
    bundle = packed(save(plain(nodes, constants=constants)), data, tmp_path / "bundle")
    assert (bundle.manifest.ships, list(bundle.manifest.graphs)) == ("int8", ["int8"])
    session = session_of(bundle)
    cotangent = np.ones((12, 4), np.float32)

    def rounded(x: Any) -> Any:
        return network(torch.fake_quantize_per_tensor_affine(x, 0.01, 10, 0, 255))

    np.testing.assert_allclose(
        gradient_of(session, X, cotangent), torch_gradient(rounded, X, cotangent), rtol=0, atol=1e-4
    )
    result = command("pack", save(plain(nodes, constants=constants)), "--data", data, "--precision", "fp32")
    assert result.exit_code == 3
    assert "is quantised" in result.stderr

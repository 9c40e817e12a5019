"""Graphs that mix the images of a batch are refused in every precision; a rounding that flips is no mixing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.export.plain import B2, BODY, W1, W2, WEIGHTS, X, plain
from tests.export.strangers import command

if TYPE_CHECKING:
    from pathlib import Path

PLACES = {"zero": np.asarray([0]), "one": np.asarray([1])}
ENDS = {
    "the most of the batch": ["a = ReduceMax <keepdims=1> (z, zero)", "b = Mul (a, bit)", "scores = Add (z, b)"],
    "the image before": [
        "h = Slice (z, zero, minus, zero)",
        "l = Slice (z, minus, far, zero)",
        "a = Concat <axis=0> (l, h)",
        "b = Mul (a, bit)",
        "scores = Add (z, b)",
    ],
    "the number of images": [
        "o = Sub (z, z)",
        "e = Exp (o)",
        "n = ReduceSum <keepdims=1> (e, zero)",
        "a = Mul (n, bit)",
        "scores = Add (z, a)",
    ],
    "the place in the batch": [
        "o = Sub (z, z)",
        "e = Exp (o)",
        "k = CumSum (e, first)",
        "a = Mul (k, bit)",
        "scores = Add (z, a)",
    ],
}
"""Behind logits z: each adds a little that is not the image's own."""


def mixing(nodes: list[str], **constants: Any) -> Any:
    named = {
        **WEIGHTS,
        **PLACES,
        "flat": np.asarray([-1, 96]),
        "minus": np.asarray([-1]),
        "far": np.asarray([2**31]),
        "first": np.asarray(0),
        "bit": np.asarray([0.05, -0.05, 0.03, -0.02], np.float32),
        **constants,
    }
    return plain(nodes, dims=["n", 3, 8, 8], out=["n", 4], constants=named)


def quantised(nodes: list[str]) -> list[str]:
    """Return BODY and what follows, where the activations behind the convolution are rounded to int8."""
    return [
        *BODY[:2],
        "q = QuantizeLinear (r, step, nought)",
        "d = DequantizeLinear (q, step, nought)",
        "f = Reshape (d, flat)",
        "m = MatMul (f, w2)",
        "z = Add (m, b2)",
        *nodes,
    ]


def others(tmp_path: Path, n: int = 40) -> Path:
    more = np.random.default_rng(9).random((n, *X.shape[1:]), dtype=np.float32)
    np.savez(tmp_path / "train.npz", x=more, y=np.zeros(n, np.int64))
    return tmp_path / "train.npz"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("wanted", ["fp32", "fp16", "int8"])
def test_what_mixes_its_batch_a_little_is_refused_in_each_precision_that_is_made_of_it(
    wanted: str, end: str, data: Path, save: Any, tmp_path: Path
) -> None:
    model = save(mixing([*BODY, "z = Add (m, b2)", *ENDS[end]]))
    asked = ("--precision", wanted, "--calibration", others(tmp_path), "--gradient", "none", "--keep-fp16", "none")
    result = command("pack", model, "--data", data, "--out", tmp_path / "bundle", *asked)
    assert result.exit_code == 3, result.output
    assert "batch of 2" in result.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("end", ["the most of the batch", "the image before"])
def test_what_came_quantised_and_mixes_its_batch_a_little_is_refused(
    end: str, data: Path, save: Any, tmp_path: Path
) -> None:
    model = mixing(quantised(ENDS[end]), step=np.float32(0.02), nought=np.int8(0))
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle", "--gradient", "none")
    assert result.exit_code == 3, result.output
    assert "depends on the other images" in result.stderr


def test_int8_that_is_far_from_its_original_is_told_as_that_and_not_as_mixing(
    data: Path, save: Any, tmp_path: Path
) -> None:
    # One channel, which the logits do not read, is so large that int8 rounds the others to nothing.
    loud, deaf = W1.copy(), W2.copy()
    loud[0] *= 1e4
    deaf[:16] = 0
    model = plain(constants={**WEIGHTS, "w1": loud, "w2": deaf, "b2": np.zeros_like(B2)})
    asked = ("--precision", "fp32,int8", "--calibration", others(tmp_path), "--keep-fp16", "none")
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle", *asked)
    assert result.exit_code == 3, result.output
    assert "the exported int8 graph is not the network" in result.stderr
    assert "--calibration-method" in result.stderr
    assert "batch" not in result.stderr


def test_a_rounding_that_flips_between_batches_is_no_mixing(data: Path, save: Any, tmp_path: Path) -> None:
    # ReduceMean over a middle axis rounds otherwise in a batch; steps of its last bits make a difference of that.
    nodes = [
        *BODY[:2],
        "f = Reshape (r, flat)",
        "m = MatMul (f, w2)",
        "p = ReduceMean <keepdims=0> (r, one)",
        "g = Flatten (p)",
        "t = Mul (g, often)",
        "u = Round (t)",
        "v = Mod <fmod=1> (u, two)",
        "h = MatMul (v, some)",
        "scores = Add (m, h)",
    ]
    some = np.random.default_rng(3).standard_normal((16, 4)).astype(np.float32) / 50
    model = mixing(nodes, often=np.float32(2**24), two=np.float32(2), some=some)
    np.savez(data, x=X, y=np.zeros(len(X), np.int64))
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle", "--gradient", "none")
    assert result.exit_code == 0, result.output
    assert "in another batch" in result.stdout

"""The integers between a quantiser and its dequantiser carry the gradient, through whatever is done to them.

In torch the same is done to the fake-quantised floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from export.precision.half import in_float16
from tests.export.classifiers import attack_feeds, classifier, evaluate
from tests.export.rules.cases import Case, check_same_bits_everywhere, gradient_of

SCALE, ZERO = 0.02, np.int8(-30)
QUANTISER = {"scale": SCALE, "zero": ZERO}
BACK = "y = DequantizeLinear (i, scale, zero)"


def fake(x: Any, low: int = -128, high: int = 127, scale: float = SCALE, zero: int = int(ZERO)) -> Any:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


def between(nodes: str, function: Any, image: tuple[int, ...] = (4, 7, 6), **constants: Any) -> Case:
    """Put `nodes`, q to i, between a quantiser and its dequantiser."""
    return Case(
        f"q = QuantizeLinear (x, scale, zero)\n{nodes}\n{BACK}",
        lambda x, scale, zero, *rest: function(fake(x)),
        {**QUANTISER, **constants},
        image,
    )


def ints(*values: int) -> Any:
    return np.asarray(values)


CASES = {
    "Transpose": between("i = Transpose <perm=[0,2,3,1]> (q)", lambda x: x.permute(0, 2, 3, 1)),
    "two Transposes": between("t = Transpose <perm=[0,2,3,1]> (q)\ni = Transpose <perm=[0,3,1,2]> (t)", lambda x: x),
    "Reshape": between("i = Reshape (q, s)", lambda x: x.reshape(-1, 8, 21), s=ints(-1, 8, 21)),
    "Flatten": between("i = Flatten (q)", lambda x: x.flatten(1)),
    "Clip, as a quantiser of a reduced range": Case(
        f"q = QuantizeLinear (x, scale, zero)\ni = Clip (q, low, high)\n{BACK}",
        lambda x, scale, zero, low, high: fake(x, int(low), int(high)),
        {**QUANTISER, "low": np.int8(-60), "high": np.int8(10)},
    ),
    "Max in place of a ReLU": between("i = Max (q, zero)", lambda x: torch.maximum(x, torch.zeros_like(x))),
    "Relu": Case(
        "q = QuantizeLinear (x, scale)\nc = Cast <to=3> (q)\ni = Relu (c)\ny = DequantizeLinear (i, scale)",
        lambda x, scale: fake(x, 0, 255, 2 * SCALE, 0).relu(),
        {"scale": 2 * SCALE},
    ),
    "Concat of two branches": Case(
        "q = QuantizeLinear (x, scale, zero)\nn = Neg (x)\np = QuantizeLinear (n, scale, zero)\n"
        f"i = Concat <axis=1> (p, q)\n{BACK}",
        lambda x, scale, zero: torch.cat([fake(-x), fake(x)], 1),
        QUANTISER,
    ),
    "MaxPool, padded": between(
        "i = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (q)", lambda x: F.max_pool2d(x, 3, 2, 1)
    ),
    "Slice": between(
        "i = Slice (q, starts, ends, axes)",
        lambda x: x[:, 1:3, :, :-2],
        starts=ints(1, 0),
        ends=ints(3, -2),
        axes=ints(1, 3),
    ),
    "Pad": between("i = Pad (q, pads, zero)", lambda x: F.pad(x, (1, 0, 2, 1)), pads=ints(0, 0, 2, 1, 0, 0, 1, 0)),
    "Tile": between("i = Tile (q, r)", lambda x: x.repeat(1, 1, 2, 1), r=ints(1, 1, 2, 1)),
    "Gather": between("i = Gather <axis=1> (q, places)", lambda x: x[:, [2, 0, 2]], places=ints(2, 0, 2)),
    "Resize to the nearest": between(
        'i = Resize <coordinate_transformation_mode="asymmetric", mode="nearest", nearest_mode="floor"> (q, , scales)',
        lambda x: F.interpolate(x, scale_factor=(2, 3)),
        scales=np.asarray([1, 1, 2, 3], np.float32),
    ),
    "Unsqueeze and Squeeze": between("u = Unsqueeze (q, one)\ni = Squeeze (u, one)", lambda x: x, one=ints(1)),
    "Split": between(
        "a, b = Split <axis=1> (q, sizes)\ni = Concat <axis=1> (b, a)",
        lambda x: torch.cat([x[:, 1:], x[:, :1]], 1),
        sizes=ints(1, 3),
    ),
    "DepthToSpace": between('i = DepthToSpace <blocksize=2, mode="CRD"> (q)', lambda x: F.pixel_shuffle(x, 2)),
    "a dequantiser of another scale": Case(
        "q = QuantizeLinear (x, scale, zero)\ny = DequantizeLinear (q, other, zero)",
        lambda x, scale, zero, other: fake(x) * 2.5,
        {**QUANTISER, "other": 2.5 * SCALE},
    ),
    "a dequantiser of another zero point": Case(
        "q = QuantizeLinear (x, scale, zero)\ny = DequantizeLinear (q, scale, other)",
        lambda x, scale, zero, other: fake(x) - 0.2,
        {**QUANTISER, "other": np.int8(-20)},
    ),
    "integers read as numbers": Case(
        "q = QuantizeLinear (x, scale, zero)\nc = Cast <to=1> (q)\nd = DequantizeLinear (q, scale, zero)\n"
        "y = Add (c, d)",
        lambda x, scale, zero: fake(x) * (1 + 1 / SCALE) + int(zero),
        QUANTISER,
    ),
    "by channel, and transposed": Case(
        "q = QuantizeLinear <axis=1> (x, s, z)\nt = Transpose <perm=[0,2,3,1]> (q)\n"
        "y = DequantizeLinear <axis=-1> (t, s, z)",
        lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s.float(), z.int(), 1, -128, 127).permute(0, 2, 3, 1),
        {"s": np.asarray([0.002, 0.004, 0.006, 0.02]), "z": np.asarray([0, -30, 5, 100], np.int8)},
    ),
    "arithmetic on integers": between(
        "w = Cast <to=6> (q)\na = Add (w, w)\nb = Sub (a, w)\nm = Mul (b, one)\nn = Min (m, most)\ni = Cast <to=3> (n)",
        lambda x: x.clamp(max=(10 - int(ZERO)) * SCALE),
        one=np.int32(1),
        most=np.int32(10),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_through_integers_equals_that_of_fake_quantised_floats(name: str) -> None:
    ours, expected = gradient_of(CASES[name], np.float32)
    assert expected.any()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_gradient_through_integers_has_the_same_bits_wherever_the_row_is(name: str) -> None:
    check_same_bits_everywhere(CASES[name])


RESIDUAL = [
    "c = Conv <pads=[1,1,1,1]> (input, w)",
    "q = QuantizeLinear (c, scale, zero)",
    "t = Transpose <perm=[0,2,3,1]> (q)",
    "u = Transpose <perm=[0,3,1,2]> (t)",
    "d = DequantizeLinear (u, scale, zero)",
    "s = Add (d, input)",
    "f = Flatten (s)",
    "logits = Gemm (f, h)",
]


def residual(*without: str, dtype: Any = np.float32) -> Any:
    """A quantised branch beside a shortcut, which alone had a gradient where integers were dropped."""
    random = np.random.default_rng(0)
    nodes = [node for node in RESIDUAL if not node.startswith(without)] if without else RESIDUAL
    if without:
        nodes = [node.replace("(u, scale", "(q, scale") for node in nodes]
    constants = {
        "w": random.standard_normal((1, 1, 3, 3)),
        "h": random.standard_normal((64, 3)),
        "scale": np.asarray(0.03),
        "zero": np.int8(3),
    }
    return classifier(nodes, image=(1, 8, 8), classes=3, constants=constants, dtype=dtype)


def feeds() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return attack_feeds(random.random((8, 1, 8, 8)).astype(np.float32), 3, cotangent=random.standard_normal((8, 3)))


def test_a_branch_of_moved_integers_beside_a_shortcut_has_the_gradient_of_the_unmoved_one() -> None:
    moved, plain = (
        evaluate(gradient_graph(prepare(model)), feeds())["gradient"] for model in (residual(), residual("t =", "u ="))
    )
    np.testing.assert_allclose(moved, plain, rtol=1e-5, atol=1e-6)


def test_a_quantiser_of_float16_is_differentiated_in_it_and_its_integers_in_float32() -> None:
    exact = evaluate(gradient_graph(prepare(residual())), feeds())["gradient"]
    half = in_float16(prepare(residual()))
    found = evaluate(gradient_graph(half), feeds())["gradient"]
    assert b"QuantizeLinear" in to_bytes(half.model)
    error = np.abs(found - exact).max((1, 2, 3)) / np.abs(exact).max((1, 2, 3))
    assert np.median(error) < 0.02

"""What is written out in simple operations answers as ONNX Runtime's own does, and has a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from export.precision.candidate import Candidate
from export.rules import RULES, RULES_OF_MANY
from export.standard import WRITTEN, in_simple_operations
from export.standard.blocked import OF_BLOCKS
from runtime.attacks.oracle import Oracle
from tests.export.classifiers import attack_feeds, exact_session
from tests.export.standard.test_composed import CASES as COMPOSED

RANDOM = np.random.default_rng(0)
IMAGE = (4, 6, 6)


def real(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*shape: int, kind: Any = np.int8) -> Any:
    limits = np.iinfo(kind)
    return RANDOM.integers(max(limits.min, -100), min(limits.max, 100), shape).astype(kind)


S, Z = np.float32(0.03), np.uint8(110)
SCALES = {"s": S, "z": Z, "t": np.float32(0.05), "o": np.uint8(128)}
Q = "q = QuantizeLinear (input, s, z)"
R = "r = DequantizeLinear (i, t, o)"
M = "com.microsoft"
CHANNELS = {"ws": np.asarray([0.01, 0.02, 0.03], np.float32), "wz": np.asarray([0, 3, -5], np.int8)}
W, ROWS = whole(3, 4, 3, 3), whole(6, 5)
LAST = "l = Transpose <perm=[0,2,3,1]> (q)"


def quantised(*nodes: str, **constants: Any) -> tuple[list[str], dict[str, Any]]:
    """Put nodes, q to i, between a quantiser and the dequantiser of another scale."""
    return [Q, *nodes, R], {**SCALES, **constants}


def plain(*nodes: str, **constants: Any) -> tuple[list[str], dict[str, Any]]:
    return list(nodes), constants


CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "QLinearConv": quantised(
        "i = QLinearConv <pads=[1,1,1,1], strides=[2,2]> (q, s, z, w, u, v, t, o)",
        w=W,
        u=np.float32(0.01),
        v=np.int8(3),
    ),
    "QLinearConv by channel, with a bias": quantised(
        "i = QLinearConv (q, s, z, w, ws, wz, t, o, b)", w=W, **CHANNELS, b=whole(3, kind=np.int32)
    ),
    "QLinearConv with channels last": quantised(
        LAST,
        f"c = {M}.QLinearConv <channels_last=1> (l, s, z, w, u, v, t, o)",
        "i = Transpose <perm=[0,3,1,2]> (c)",
        w=W,
        u=np.float32(0.01),
        v=np.int8(0),
    ),
    "QLinearMatMul by column": quantised(
        "i = QLinearMatMul (q, s, z, w, u, v, t, o)",
        w=ROWS,
        u=np.asarray([0.01, 0.02, 0.01, 0.03, 0.01], np.float32),
        v=np.zeros(5, np.int8),
    ),
    "QGemm": quantised(
        "f = Flatten (q)",
        f"i = {M}.QGemm <transB=1, alpha=1.0> (f, s, z, w, u, v, b, t, o)",
        w=whole(5, 144),
        u=np.float32(0.002),
        v=np.int8(1),
        b=whole(5, kind=np.int32),
    ),
    "QGemm to floats": (
        [Q, "f = Flatten (q)", f"r = {M}.QGemm <alpha=0.5> (f, s, z, w, u, v)"],
        {**SCALES, "w": whole(144, 5), "u": np.float32(0.002), "v": np.int8(1)},
    ),
    "QLinearAdd": quantised(
        "n = Tanh (input)", "p = QuantizeLinear (n, t, o)", f"i = {M}.QLinearAdd (q, s, z, p, t, o, t, o)"
    ),
    "QLinearMul": quantised(
        "n = Tanh (input)", "p = QuantizeLinear (n, t, o)", f"i = {M}.QLinearMul (q, s, z, p, t, o, t, o)"
    ),
    "QLinearSigmoid": quantised(f"i = {M}.QLinearSigmoid (q, s, z, t, o)"),
    "QLinearLeakyRelu": quantised(f"i = {M}.QLinearLeakyRelu <alpha=0.2> (q, s, z, t, o)"),
    "QLinearSoftmax": quantised(f"i = {M}.QLinearSoftmax <axis=-1, opset=13> (q, s, z, e, n)", e=np.float32(1 / 256),
                                n=np.uint8(0)),
    "QLinearGlobalAveragePool": quantised(f"i = {M}.QLinearGlobalAveragePool (q, s, z, t, o)"),
    "QLinearGlobalAveragePool with channels last": quantised(
        LAST, f"i = {M}.QLinearGlobalAveragePool <channels_last=1> (l, s, z, t, o)"
    ),
    "QLinearAveragePool": quantised(
        f"i = {M}.QLinearAveragePool <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (q, s, z, t, o)"
    ),
    "QLinearConcat": quantised(
        "n = Tanh (input)", "p = QuantizeLinear (n, t, o)", f"i = {M}.QLinearConcat <axis=1> (t, o, q, s, z, p, t, o)"
    ),
    "QLinearWhere": quantised(
        f"i = {M}.QLinearWhere (c, q, s, z, p, t, o, t, o)", c=RANDOM.random((4, 6, 6)) < 0.5,
        p=whole(4, 6, 6, kind=np.uint8),
    ),
    "ConvInteger": (
        [Q, "i = ConvInteger <pads=[1,1,1,1]> (q, w, z, v)", "c = Cast <to=1> (i)", "r = Mul (c, t)"],
        {**SCALES, "w": W, "v": np.int8(3)},
    ),
    "ConvInteger without zero points": (
        [Q, "i = ConvInteger (q, w)", "c = Cast <to=1> (i)", "r = Mul (c, t)"],
        {**SCALES, "w": W},
    ),
    "MatMulInteger": (
        [Q, "i = MatMulInteger (q, w, z, v)", "c = Cast <to=1> (i)", "r = Mul (c, t)"],
        {**SCALES, "w": ROWS, "v": np.int8(3)},
    ),
    "MatMulIntegerToFloat": (
        [Q, f"r = {M}.MatMulIntegerToFloat (q, w, s, t, z, v, b)"],
        {**SCALES, "w": ROWS, "v": np.int8(3), "b": real(5)},
    ),
    "QuantizeLinear of 16 bits": plain(
        f"q = {M}.QuantizeLinear (input, s, z)", f"r = {M}.DequantizeLinear (q, s, z)", s=np.float32(1e-4),
        z=np.uint16(3e4),
    ),
    "QuantizeLinear of 16 bits by channel": plain(
        f"q = {M}.QuantizeLinear <axis=1> (input, s, z)",
        f"r = {M}.DequantizeLinear <axis=1> (q, s, z)",
        s=np.asarray([1e-4, 2e-4, 3e-5, 1e-4], np.float32),
        z=np.asarray([0, 5, -7, 1000], np.int16),
    ),
    "QuantizeLinear of 8 bits": plain(f"q = {M}.QuantizeLinear (input, s, z)", f"r = {M}.DequantizeLinear (q, s, z)",
                                      s=S, z=Z),
    "DequantizeLinear of weights of 16 bits": plain(
        f"w = {M}.DequantizeLinear (n, s, z)", "r = Conv (input, w)", n=whole(3, 4, 3, 3, kind=np.int16), s=S,
        z=np.int16(0),
    ),
    "DequantizeLinear of weights of 4 bits": plain(
        f"w = {M}.DequantizeLinear <axis=0> (n, s, z)",
        "r = Conv (input, w)",
        n=helper.make_tensor("n", onnx.TensorProto.INT4, [3, 4, 3, 3], RANDOM.integers(-8, 8, 108)),
        s=np.asarray([0.1, 0.2, 0.3], np.float32),
        z=helper.make_tensor("z", onnx.TensorProto.INT4, [3], [0, 1, -2]),
    ),
    "DynamicQuantizeLinear": plain(
        "q, s, z = DynamicQuantizeLinear (input)", "i = ConvInteger (q, w, z)", "c = Cast <to=1> (i)",
        "m = Mul (s, t)", "r = Mul (c, m)", w=W, t=np.float32(0.01),
    ),
    "DynamicQuantizeLinear of rows": plain(
        "f = Flatten (input)", "q, s, z = DynamicQuantizeLinear (f)", "i = MatMulInteger (q, w, z)",
        "c = Cast <to=1> (i)", "m = Mul (s, t)", "r = Mul (c, m)", w=whole(144, 5), t=np.float32(0.01),
    ),
    "DynamicQuantizeMatMul": plain(f"r = {M}.DynamicQuantizeMatMul (input, w, t, v, b)", w=ROWS, t=S, v=np.int8(2),
                                   b=real(5)),
    "FusedConv": plain(
        "y = Conv <pads=[1,1,1,1]> (input, v)",
        f'r = {M}.FusedConv <pads=[1,1,1,1], activation="Relu"> (input, w, b, y)',
        w=real(3, 4, 3, 3), b=real(3), v=real(3, 4, 3, 3),
    ),
    "FusedConv with Clip": plain(
        f'r = {M}.FusedConv <activation="Clip", activation_params=[-0.5, 1.5]> (input, w)', w=real(3, 4, 3, 3)
    ),
    "FusedConv with LeakyRelu": plain(
        f'r = {M}.FusedConv <activation="LeakyRelu", activation_params=[0.25]> (input, w)', w=real(3, 4, 3, 3)
    ),
    "FusedConv with HardSigmoid": plain(
        f'r = {M}.FusedConv <activation="HardSigmoid", activation_params=[0.25, 0.4]> (input, w)', w=real(3, 4, 3, 3)
    ),
    "FusedGemm": plain(
        "f = Flatten (input)",
        f'r = {M}.FusedGemm <activation="LeakyRelu", activation_alpha=0.2, alpha=0.5, transB=1> (f, w, b)',
        w=real(5, 144), b=real(5),
    ),
    "FusedMatMul": plain(f"r = {M}.FusedMatMul <transB=1, alpha=0.125> (input, input)"),
    "Gelu": plain(f"r = {M}.Gelu (input)"),
    "BiasGelu": plain(f"r = {M}.BiasGelu (input, b)", b=real(6)),
    "FastGelu": plain(f"r = {M}.FastGelu (input, b)", b=real(6)),
    "QuickGelu": plain(f"r = {M}.QuickGelu <alpha=1.5> (input)"),
    "SkipLayerNormalization": plain(
        "h = Reshape (input, flat)", f"r = {M}.SkipLayerNormalization <epsilon=0.0001> (h, h, g, b, c)",
        g=real(6), b=real(6), c=real(6), flat=np.asarray([0, -1, 6]),
    ),
    "SkipLayerNormalization with its sum": plain(
        "h = Reshape (input, flat)", f"y, , , t = {M}.SkipLayerNormalization (h, h, g)", "r = Mul (y, t)",
        g=real(6), flat=np.asarray([0, -1, 6]),
    ),
}  # fmt: skip


def model_of(case: tuple[list[str], dict[str, Any]], opset: int = 20) -> Any:
    nodes, constants = case
    tensors = []
    for name, value in constants.items():
        tensor = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        tensor.name = name
        tensors.append(tensor)
    graph = helper.make_graph(
        [parser.parse_node(node) for node in [*nodes, "logits = Flatten (r)"]],
        "single",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", *IMAGE])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", None])],
        tensors,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(M, 1)], ir_version=10
    )
    classes = run(model, images(1)).shape[1]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    return model


def images(n: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((n, *IMAGE)).astype(np.float32)


def run(model: Any, x: Any, **feeds: Any) -> Any:
    providers = ["CPUExecutionProvider"]
    opened = (
        onnxruntime.InferenceSession(to_bytes(model), providers=providers) if feeds else exact_session(to_bytes(model))
    )
    return opened.run(["gradient" if feeds else "logits"], {"input": x, **feeds})[0]


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_out_answers_as_the_operation_itself(name: str) -> None:
    """To the bit, but for sums in another order: those may end on the other side of a half, one step away."""
    model = model_of(CASES[name])
    written = in_simple_operations(model, {*RULES, *RULES_OF_MANY})
    assert not {node.op_type for node in written.graph.node} & {node.op_type for node in model.graph.node} - {*RULES}
    for x in images(16).reshape(16, 1, *IMAGE):
        expected, found = run(model, x), run(written, x)
        step = float(SCALES["t"]) if "q" in "".join(CASES[name][0]) else 1e-4
        different = np.abs(found - expected) > 1e-5 * max(1.0, np.abs(expected).max())
        assert different.mean() <= 0.02, different.mean()
        assert np.abs(found - expected).max() <= step * 1.01 + 1e-5


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_out_has_a_gradient(name: str) -> None:
    model = model_of(CASES[name])
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    x = images(3)
    feeds = attack_feeds(x, classes, cotangent=np.random.default_rng(2).standard_normal((3, classes)))
    wanted = {info.name for info in gradient_graph(prepare(model)).graph.input}
    gradient = run(gradient_graph(prepare(model)), x, **{k: v for k, v in feeds.items() if k in wanted - {"input"}})
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max((1, 2, 3)) > 0).all()


@pytest.mark.parametrize(("nodes", "own"), [(["r = Relu (input)"], True), (CASES["SkipLayerNormalization"][0], False)])
def test_the_hints_of_a_gradient_graph_hold_where_it_differentiates_the_graph_itself(nodes: Any, own: bool) -> None:
    """What is written out rounds otherwise: an attack puts each of its points to the artifact then."""
    constants = CASES["SkipLayerNormalization"][1] if not own else {}
    candidate = Candidate(prepare(model_of((nodes, constants))))
    assert (candidate.differentiated is candidate.forward) == own
    assert Oracle(candidate.session, 8).hints_hold == own
    candidate.close()


def test_everything_that_is_written_out_has_a_case() -> None:
    used = {parser.parse_node(line).op_type for nodes, _ in CASES.values() for line in nodes}
    elsewhere = {*COMPOSED, *OF_BLOCKS, "RNN", "LSTM", "GRU"}  # in test_blocked.py and test_recurrent.py
    assert {op for _, op in WRITTEN} <= used | elsewhere


def test_a_model_of_simple_operations_is_left_as_it_is() -> None:
    model = model_of(plain("r = Relu (input)"))
    assert in_simple_operations(model, {*RULES, *RULES_OF_MANY}) is model

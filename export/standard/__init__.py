"""Writes out ONNX Runtime's own and composed operations in ONNX's simple operations.

The artifact stays unchanged; its gradient graph is derived from the graph that this package returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, defs, helper

from export.graph.constants import ONNX
from export.graph.graph import Emitter
from export.graph.inference import infer_node
from export.graph.passes import opset_of
from export.standard import composed, dynamic, fused, integers, recurrent
from export.standard.blocked import NCHWC, OF_BLOCKS
from export.standard.bodies import body, has_body
from export.standard.integers import MICROSOFT
from export.standard.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from onnx import TensorProto

    from export.standard.part import Writing

OF_ONNX: Mapping[str, Writing] = {
    "Attention": composed.attention,
    "ConvInteger": integers.convolution_of_integers,
    "DynamicQuantizeLinear": dynamic.quantize,
    "GRU": recurrent.gru,
    "GlobalLpPool": composed.global_lp_pool,
    "LSTM": recurrent.lstm,
    "LpPool": composed.lp_pool,
    "MatMulInteger": integers.matmul_of_integers,
    "QLinearConv": integers.convolution,
    "QLinearMatMul": integers.matmul,
    "RNN": recurrent.rnn,
    "ReduceProd": composed.product,
}
REDEFINED = ("GroupNormalization",)
"""Operations that mean something else in an older operator set."""
OF_MICROSOFT: Mapping[str, Writing] = {
    "BiasGelu": fused.gelu,
    "DequantizeLinear": integers.dequantize,
    "DynamicQuantizeMatMul": dynamic.matmul,
    "FastGelu": fused.fast_gelu,
    "FusedConv": fused.convolution,
    "FusedGemm": fused.gemm,
    "FusedMatMul": fused.matmul,
    "Gelu": fused.gelu,
    "MatMulIntegerToFloat": integers.matmul_to_real,
    "QGemm": integers.gemm,
    "QLinearAdd": integers.binary("Add"),
    "QLinearAveragePool": integers.average_pool,
    "QLinearConcat": integers.concat,
    "QLinearConv": integers.convolution,
    "QLinearGlobalAveragePool": integers.global_average_pool,
    "QLinearLeakyRelu": integers.unary("LeakyRelu", "alpha"),
    "QLinearMul": integers.binary("Mul"),
    "QLinearSigmoid": integers.unary("Sigmoid"),
    "QLinearSoftmax": integers.softmax,
    "QLinearWhere": integers.where,
    "QuantizeLinear": integers.quantize,
    "QuickGelu": fused.quick_gelu,
    "SkipLayerNormalization": fused.skip_layer_normalization,
}
WRITTEN: dict[tuple[str, str], Writing] = {
    **{("", op): writing for op, writing in OF_ONNX.items()},
    **{(MICROSOFT, op): writing for op, writing in OF_MICROSOFT.items()},
    **{(NCHWC, op): writing for op, writing in OF_BLOCKS.items()},
}
"""How an operation is written out, by its domain and its name."""


OF_NEWER_OPSETS: Mapping[str, Writing] = {
    "Attention": composed.attention,
    "DequantizeLinear": integers.kept("DequantizeLinear"),
    "QuantizeLinear": integers.kept("QuantizeLinear"),
}
"""What an older operator set has not, or not so."""


def is_written_out(node: NodeProto) -> bool:
    """Whether some uses of a node's operation are written out."""
    return _key(node) in WRITTEN


def in_simple_operations(model: ModelProto, known: Collection[str]) -> ModelProto:
    """Return a model with what is not `known` written out where it can be; the same object where nothing is.

    Args:
        model: opset 18 to 20, its nodes sorted. Nobody changes it.
        known: names of ONNX's operations that stay as they are.

    """
    opset = opset_of(model)

    def writing(node: NodeProto) -> Writing | None:
        if node.domain in ONNX and node.op_type in known:
            return None
        return WRITTEN.get(_key(node)) or (body if has_body(node, opset) else None)

    return _written(model, writing)


def in_older_operations(model: ModelProto, opset: int) -> ModelProto:
    """Return a model with what came after an operator set written out where it can be; the same object if nothing is.

    Args:
        model: of a newer operator set, its nodes sorted. Nobody changes it.
        opset: which it is to be brought to.

    """

    def writing(node: NodeProto) -> Writing | None:
        if node.domain not in ONNX or _since(node.op_type, opset_of(model)) <= opset:
            return None
        has = has_body(node, opset_of(model)) and not _since(node.op_type, opset)
        return OF_NEWER_OPSETS.get(node.op_type) or (body if has or node.op_type in REDEFINED else None)

    return _written(model, writing)


def _since(op: str, opset: int) -> int:
    """Return the operator set that an operation is defined by in another one; 0 where it is not in that."""
    try:
        return int(defs.get_schema(op, opset, "").since_version)
    except defs.SchemaError:
        return 0


def _key(node: NodeProto) -> tuple[str, str]:
    return ("" if node.domain in ONNX else node.domain, node.op_type)


def _written(model: ModelProto, writing_of: Callable[[NodeProto], Writing | None]) -> ModelProto:
    """Replace each node that has a writing, one after the other, with what is known of those before it."""
    if not any(writing_of(node) for node in model.graph.node):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    types = {info.name: info.type for info in graph.input if info.name not in constants}
    del graph.node[:], graph.value_info[:]
    waiting = list(model.graph.node)[::-1]
    while waiting:
        node = waiting.pop()
        writing = writing_of(node)
        nodes = _replaced(node, writing, constants, types, opset_of(model)) if writing else None
        if nodes is None:
            infer_node(node, types, constants, copy)
            graph.node.append(node)
        else:
            waiting.extend(nodes[::-1])
    kept = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(tensor for name, tensor in constants.items() if name not in kept)
    _import(copy, MICROSOFT)
    return copy


def _replaced(
    node: NodeProto,
    writing: Writing,
    constants: dict[str, TensorProto],
    types: Mapping[str, TypeProto],
    opset: int,
) -> list[NodeProto] | None:
    """Return the nodes that stand for one, whose constants are added; None where this use of it has none."""
    emit = Emitter(np.dtype(np.float32), f"{node.output[0]}/written")
    answer = writing(emit, Part(node, constants, types, opset))
    if answer is None:
        return None
    made = dict(zip(node.output, [answer] if isinstance(answer, str) else answer, strict=False))
    wanted = [name for name in node.output if name]
    if not all(made.get(name) for name in wanted):
        return None
    for name in wanted:
        emit.rename(made[name], name)
    constants.update({tensor.name: tensor for tensor in emit.initializers})
    return emit.nodes


def _import(model: ModelProto, domain: str) -> None:
    """Let a model import a domain, where its nodes have it."""
    known = {entry.domain for entry in model.opset_import}
    if domain not in known and any(node.domain == domain for node in model.graph.node):
        model.opset_import.append(helper.make_opsetid(domain, 1))

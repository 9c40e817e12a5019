"""Reverse-mode differentiation of an ONNX graph: ONNX in, ONNX out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, checker, helper, shape_inference

from export.graph.graph import Emitter, Graph, Node
from export.graph.passes import prepare
from export.losses import COTANGENT, HEADS, LABEL, TARGET, WEIGHTS, emit_losses
from export.rules import LED, OF_INTEGERS, OF_SHAPES, RULES, RULES_OF_MANY
from export.standard import in_simple_operations, is_written_out
from runtime.errors import BadModel, Page
from runtime.session import GRADIENT, INPUT, LOGITS, VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from export.graph.graph import Gradients
    from export.graph.passes import Prepared

_RESERVED = {LABEL, TARGET, WEIGHTS, COTANGENT, VALUE, GRADIENT}


def in_operations_with_rules(forward: Prepared) -> Prepared:
    """Return a classifier in which operations without a rule are written as simpler ones, up to rounding."""
    model = in_simple_operations(forward.model, {*RULES, *RULES_OF_MANY})
    return forward if model is forward.model else prepare(model)


def gradient_graph(forward: Prepared) -> ModelProto:
    """Return the graph of a classifier's logits, an attack's losses and their input gradient, all in one pass.

    Each operation is differentiated in the type in which it computes. If any type is float16, the cotangent of the
    losses is first scaled to a largest absolute value of 1 for each image, and the gradient is scaled back in float32:
    otherwise the gradient of a trained network falls below float16's smallest number. The gradient of a staircase is a
    surrogate, the slope of a ramp (`export.surrogates.staircases`). Composite operations are first written as simple
    ones (`export.standard`), so that `logits` may differ from the classifier's by rounding.

    All losses are in one graph, weighted at run time. Its inputs, all of the type of `input`, with one row per image:
    `input` [B, C, H, W]; `label` and `target` [B, K], one-hot; `weights` [B, 4] of cross-entropy, margin, DLR and
    targeted DLR; `cotangent` [B, K]. Its outputs: `logits` [B, K]; `value` [B], the weighted losses plus `<cotangent,
    logits>`; `gradient` [B, C, H, W] of each value by its own image. With three classes there is no targeted head and
    therefore no `target`; with two classes there is no DLR either. `weights` is always [B, 4].

    Args:
        forward: the classifier.

    Raises:
        BadModel: an operation has no rule in `export.rules.RULES`, or is used in a way that cannot be differentiated:
            the message names the node. Or there is one class, or the logits do not depend on the input.

    """
    model = ModelProto()
    model.CopyFrom(in_operations_with_rules(forward).model)
    _rename_reserved(model)
    graph = Graph(model)
    path = _path(graph)
    classes = graph.shape(LOGITS)[1]
    if classes is None or classes < 2:
        raise BadModel(f"the model has {classes} classes, but an attack needs at least two")
    emit = Emitter(graph.dtype(LOGITS))
    value, seed = emit_losses(emit, LOGITS, classes)
    gradient = _scaled_backward(path, emit, seed) if _in_float16(path) else _backward(path, emit, seed)
    emit.rename(value, VALUE)
    emit.rename(gradient, GRADIENT)
    return _assembled(graph, emit, classes)


def _path(graph: Graph) -> list[Node]:
    """Return the nodes from `input` to `logits` in order, each with the inputs that carry a gradient.

    Everything that is computed from the image does, also integers and truth values, except for its shape alone.

    Raises:
        BadModel: one of them has no rule, or there is none.

    """
    reached = {INPUT}
    for node in graph.nodes:
        node.active = tuple(i for i, name in enumerate(node.inputs) if name in reached)
        if node.active and node.op not in OF_SHAPES:
            reached.update(name for name in node.outputs if name)
    wanted, path = {LOGITS}, []
    for node in reversed(graph.nodes):
        if node.active and wanted & reached & set(node.outputs):
            path.append(node)
            if node.op in LED:
                node.active = LED[node.op](node)
            wanted.update(node.inputs[i] for i in node.active)
    if INPUT not in wanted:
        raise BadModel("the logits do not depend on the input")
    for node in path:
        _check_has_rule(node, wanted)
    return path[::-1]


def _check_has_rule(node: Node, wanted: set[str]) -> None:
    if node.op not in {**RULES, **RULES_OF_MANY} or node.proto.domain not in ("", "ai.onnx"):
        domain = node.proto.domain
        use = "this use of " if is_written_out(node.proto) else ""
        raise BadModel(
            f"{node}: edgeproof has no derivative of {use}{node.op!r}" + (f" of the domain {domain}" if domain else ""),
            hint="--gradient none judges it with Square alone, which is weak evidence; or add a rule to export/rules",
            page=Page.DERIVATIVES,
        )
    if node.op in RULES and wanted & set(node.outputs[1:]):
        raise node.refused("more than its first output is used")
    integers = [node.inputs[i] for i in node.active if not node.is_real(node.inputs[i])]
    if integers and node.op not in OF_INTEGERS:
        raise node.refused(f"its input {integers[0]!r} has integers that depend on the image")


def _in_float16(path: list[Node]) -> bool:
    return any(node.computes_in() == np.float16 for node in path)


def _scaled_backward(path: list[Node], emit: Emitter, seed: str) -> str:
    """Differentiate from seed / max|seed| of each image, and multiply the result back; 0 stays 0."""
    real = emit.dtype
    scale = emit("Max", emit.largest(emit("Abs", seed)), emit.real(np.finfo(real).tiny))
    gradient = _backward(path, emit, emit("Div", seed, scale))
    emit.dtype = real
    return emit("Mul", gradient, emit.reshape(scale, (None, 1, 1, 1)))


def _backward(path: list[Node], emit: Emitter, seed: str) -> str:
    """Emit the rules of `path` in reverse, and sum the gradients of a value that is used more than once."""
    arrived: dict[str, list[str]] = {LOGITS: [seed]}
    for node in reversed(path):
        emit.dtype = node.computes_in()
        dys = [
            emit.converted(_sum(emit, arrived.pop(name)), node.gradient_type(name), emit.dtype)
            if name in arrived
            else None
            for name in node.outputs
        ]
        gradients = _derived(emit, node, dys)
        for position in node.active:
            if position not in gradients:
                raise node.refused(f"its input {node.inputs[position]!r} depends on the image")
            name = node.inputs[position]
            brought = emit.converted(gradients[position], emit.dtype, node.gradient_type(name))
            arrived.setdefault(name, []).append(brought)
    return _sum(emit, arrived[INPUT])


def _derived(emit: Emitter, node: Node, dys: list[str | None]) -> Gradients:
    if node.op in RULES_OF_MANY:
        return RULES_OF_MANY[node.op](emit, node, dys)
    assert dys[0] is not None
    return RULES[node.op](emit, node, dys[0])


def _sum(emit: Emitter, gradients: list[str]) -> str:
    total, *others = gradients
    for other in others:
        total = emit("Add", total, other)
    return total


def _rename_reserved(model: ModelProto) -> None:
    """Rename inner values that have the name of an input or output of the gradient graph."""
    graph = model.graph
    named = [*graph.initializer, *graph.value_info]
    taken = {item.name for item in named}
    fresh = {name: _unused(name, taken) for name in _RESERVED & taken}
    for item in named:
        item.name = fresh.get(item.name, item.name)
    for node in graph.node:
        node.input[:] = [fresh.get(name, name) for name in node.input]
        node.output[:] = [fresh.get(name, name) for name in node.output]


def _unused(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _assembled(graph: Graph, emit: Emitter, classes: int) -> ModelProto:
    """Put forward and emitted nodes together, declare the interface, and check types and shapes of all."""
    kind = helper.np_dtype_to_tensor_dtype(graph.dtype(INPUT))
    forward = graph.model.graph
    rows = {LABEL: classes, TARGET: classes, WEIGHTS: HEADS, COTANGENT: classes}
    if classes < HEADS:
        del rows[TARGET]
    batch = forward.input[0].type.tensor_type.shape.dim[0].dim_param
    image = [batch, *graph.shape(INPUT)[1:]]
    assembled = helper.make_graph(
        [*forward.node, *emit.nodes],
        "classifier_and_gradient",
        [*forward.input, *(helper.make_tensor_value_info(n, kind, [batch, k]) for n, k in rows.items())],
        [
            *forward.output,
            helper.make_tensor_value_info(VALUE, kind, [batch]),
            helper.make_tensor_value_info(GRADIENT, kind, image),
        ],
        [*forward.initializer, *emit.initializers],
    )
    model = helper.make_model(assembled, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version)
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        raise BadModel(f"the gradient graph is not valid: {error}", hint="please report this as a defect") from error
    return model

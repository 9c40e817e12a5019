"""Clean-up passes over an ONNX model, each with a postcondition. Together they leave the logits unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, checker, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from export.graph.constants import evaluate_node, is_folded
from export.graph.graph import typed_values
from runtime.backends.ort import OrtSession
from runtime.errors import BadModel, first_line
from runtime.session import INPUT, LOGITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Logits = Callable[[NDArray[Any]], NDArray[Any]]

OPSETS = range(18, 21)
"""18 is what the exporter gives at least; 20 is the newest that TensorRT 10.3, JetPack 6.2's, parses."""

TOLERANCE = 1e-4
"""Largest change of a logit by the passes, relative to the largest logit: rounding in another order, nothing more."""
DETERMINISTIC = "look for active dropout or random numbers in the graph: no verdict would hold for the next answer"

NOT_A_NUMBER = "look for a NaN in the weights, an overflow, a division by zero, or the root of a negative number"

INFINITE = (
    "look for an overflow, a division by zero, or a logarithm of 0, for example of a softmax (LogSoftmax avoids it)"
)


@dataclass(frozen=True)
class Pass:
    """One rewrite in place, and what holds after it."""

    name: str
    rewrite: Callable[[ModelProto], None]
    ensures: Callable[[ModelProto], bool]


@dataclass(frozen=True)
class Prepared:
    """A classifier after all passes. `prepare` alone makes one: what takes it need not prepare it again.

    Args:
        model: nobody changes it.
        logits: its answer [B, K] to images [B, C, H, W] of the type of `input`, by one thread, which takes the batch
            whole. The session behind it is open for as long as this is.

    """

    model: ModelProto
    logits: Logits


def prepare(model: ModelProto) -> Prepared:
    """Return a copy of a classifier without metadata, constants folded, every value's type and shape inferred.

    Args:
        model: `input` [batch, C, H, W] in, `logits` [batch, K] out, float32 (or float64), opset 18 to 20.

    Raises:
        BadModel: the model has another interface, or a pass broke it.

    """
    check_interface(model)
    copy = ModelProto()
    copy.CopyFrom(model)
    for step in PASSES:
        step.rewrite(copy)
        if not step.ensures(copy):
            raise BadModel(f"the clean-up step {step.name!r} failed on this graph")
    return Prepared(copy, _same_logits(model, copy))


def check_interface(model: ModelProto) -> None:
    """Raise `BadModel` unless the model is valid ONNX with the input, output and opset that edgeproof works with."""
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise BadModel(f"not a valid ONNX model: {first_line(error)}") from None
    opset = opset_of(model)
    if opset not in OPSETS:
        raise BadModel(
            f"the model has opset {opset}, but edgeproof needs {OPSETS[0]} to {OPSETS[-1]}",
            hint="export it again with one of these, or use onnx.version_converter",
        )
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in constants]
    for kind, values, name, rank in (("input", inputs, INPUT, 4), ("output", model.graph.output, LOGITS, 2)):
        if [info.name for info in values] != [name]:
            raise BadModel(
                f"the model's {kind}s are {[info.name for info in values]} instead of [{name!r}]",
                hint=f"rename it, and keep only one {kind}",
            )
        dims = values[0].type.tensor_type.shape.dim
        if len(dims) != rank or any(not dim.dim_value for dim in dims[1:]) or dims[0].dim_value:
            raise BadModel(
                f"the {kind} {name!r} must have {rank} dimensions, the first dynamic and the others fixed",
                hint="export it with a dynamic batch and static image sizes",
            )


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operator set that a model imports."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def input_shape(model: ModelProto) -> tuple[int, int, int]:
    """Return (C, H, W) of a model that passed `check_interface`."""
    channels, height, width = (
        dim.dim_value for info in model.graph.input if info.name == INPUT for dim in info.type.tensor_type.shape.dim[1:]
    )
    return channels, height, width


def classes_of(model: ModelProto) -> int:
    """Return K of a model that passed `check_interface`."""
    classes: int = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return classes


def to_bytes(model: ModelProto) -> bytes:
    """Return the bytes of a model's file, the same for the same model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def strip_metadata(model: ModelProto) -> None:
    """Remove what an exporter writes beside the graph: stack traces, paths, documentation, its own name."""
    for field in ("doc_string", "domain", "model_version", "producer_name", "producer_version"):
        model.ClearField(field)
    del model.metadata_props[:]
    graph = model.graph
    graph.name = "classifier"
    del graph.quantization_annotation[:]
    for item in [graph, *graph.node, *graph.initializer, *typed_values(graph)]:
        item.ClearField("doc_string")
        del item.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")


def fold_constants(model: ModelProto) -> None:
    """Compute every node that depends on no input, and drop Identity nodes and constants that nothing reads.

    Weights that are stored as integers stay so: see `export.graph.constants.is_folded`.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        if node.op_type == "Identity" and node.output[0] != LOGITS:
            renamed[node.output[0]] = node.input[0]
        elif is_folded(node, constants):
            for name, value in zip(node.output, evaluate_node(node, constants, model), strict=True):
                constants[name] = numpy_helper.from_array(np.asarray(value), name)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input} | {LOGITS}
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in read)
    inputs = [info for info in graph.input if info.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)


def drop_unread(model: ModelProto) -> None:
    """Drop every node that `logits` does not depend on."""
    wanted, kept = {LOGITS}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    del model.graph.node[:]
    model.graph.node.extend(kept[::-1])


def infer_shapes(model: ModelProto) -> None:
    """Infer the type and shape of every value anew. Raises `BadModel` if they contradict each other."""
    del model.graph.value_info[:]
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, data_prop=True)
    except shape_inference.InferenceError as error:
        raise BadModel(f"the shapes of the graph contradict each other: {error}") from None
    model.graph.value_info.extend(inferred.graph.value_info)


def has_no_metadata(model: ModelProto) -> bool:
    """Whether neither the model, nor a node, nor a value carries documentation or properties."""
    graph = model.graph
    items = [model, graph, *graph.node, *graph.initializer, *typed_values(graph)]
    return not any(item.doc_string or item.metadata_props for item in items)


def _reads_only_what_is_computed(model: ModelProto) -> bool:
    """Whether no node can be folded, and every value is written before it is read."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    known = {"", *constants, *(info.name for info in graph.input)}
    for node in graph.node:
        if is_folded(node, constants) or not known.issuperset(node.input):
            return False
        known.update(node.output)
    return LOGITS in known


def _has_typed_nodes(model: ModelProto) -> bool:
    """Whether everything that ONNX itself defines has a type, but for what is made of another's operation."""
    typed = {info.name for info in typed_values(model.graph)}
    untyped: set[str] = set()
    for node in model.graph.node:
        missing = set(node.output) - typed - {""}
        if missing and not node.domain and not untyped.intersection(node.input):
            return False
        untyped |= missing
    return True


def _same_logits(before: ModelProto, after: ModelProto) -> Logits:
    """Return the logits of `after`, compared with `before` on fixed random images; refuse more than rounding.

    A graph that answers NaN, or differs from itself, is no defect of the passes, and named so.
    """
    images = np.random.default_rng(0).random((2, *input_shape(before))).astype(_type_of_images(before))
    original = _opened(before)
    expected, again = original(images), original(images)
    refuse_nan(expected, "logits")
    if not np.array_equal(expected, again):
        raise BadModel("the graph answers the same image differently each time", hint=DETERMINISTIC)
    logits = _opened(after)
    answer = logits(images)
    apart = np.subtract(answer, expected, out=np.zeros_like(expected), where=answer != expected)  # inf - inf is none
    if np.abs(apart).max() > TOLERANCE * max(1.0, np.abs(expected).max()):
        raise BadModel(
            "cleaning up the graph changed its logits", hint="this is a defect of edgeproof: please report it"
        )
    return logits


def refuse_nan(answers: NDArray[Any], what: str) -> None:
    """Raise `BadModel` if a graph returns NaN."""
    if np.isnan(answers).any():
        raise BadModel(f"the {what} of the graph are NaN", hint=NOT_A_NUMBER)


def refuse_infinite(answers: NDArray[Any], what: str) -> None:
    """Raise `BadModel` if a graph returns infinity, which no attack can follow."""
    if np.isinf(answers).any():
        raise BadModel(f"the {what} of the graph are infinite", hint=INFINITE)


def _opened(model: ModelProto) -> Logits:
    """Open a model in ONNX Runtime; if it is in float64, for which ONNX Runtime lacks kernels, in onnx's evaluator."""
    if _type_of_images(model) == np.float64:
        evaluator = ReferenceEvaluator(model)
        return lambda images: np.asarray(next(iter(evaluator.run(None, {INPUT: images}))))
    return OrtSession(to_bytes(model), None, precision="fp32", threads=1).logits


def _type_of_images(model: ModelProto) -> np.dtype[Any]:
    info = next(info for info in model.graph.input if info.name == INPUT)
    return helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


PASSES = (
    Pass("strip metadata", strip_metadata, has_no_metadata),
    Pass("fold constants", fold_constants, _reads_only_what_is_computed),
    Pass("infer shapes", infer_shapes, _has_typed_nodes),
)

"""Small classifiers around one operation, exported networks, and the runtimes that judge them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from export.graph.passes import to_bytes
from pipeline.models import build_network
from runtime.backends.ort import OrtSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnx import ModelProto
    from torch import nn

    from export.graph.passes import Prepared

ARCHITECTURES = {"resnet18": None, "mobilenet_v2": None, "wideresnet": 10}
"""Each with its depth, where it comes in several."""
SIDE = 16


def classifier(
    nodes: Sequence[str],
    *,
    image: tuple[int, ...],
    classes: int,
    constants: Mapping[str, Any] | None = None,
    dtype: Any = np.float64,
    opset: int = 20,
) -> ModelProto:
    """Build a model from ONNX text, one node a line, from `input` to `logits`."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [parser.parse_node(line) for line in nodes],
        "test",
        [helper.make_tensor_value_info("input", kind, ["batch", *image])],
        [helper.make_tensor_value_info("logits", kind, ["batch", classes])],
        [numpy_helper.from_array(_typed(value, dtype), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _typed(value: Any, dtype: Any) -> Any:
    array = np.asarray(value)
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array


def attack_feeds(x: Any, classes: int, **given: Any) -> dict[str, Any]:
    """Complete the inputs of a gradient graph: label 0, no weights, no cotangent, unless given."""
    label = np.eye(classes)[np.zeros(len(x), int)]
    zeros = np.zeros((len(x), classes))
    feeds = {"label": label, "target": zeros, "weights": np.zeros((len(x), 4)), "cotangent": zeros, **given}
    if classes < 4:
        del feeds["target"]
    return {"input": x, **{name: np.asarray(value, x.dtype) for name, value in feeds.items()}}


def evaluate(model: ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run a model by onnx's own evaluator where it is in float64, else by ONNX Runtime."""
    names = [info.name for info in model.graph.output]
    if model.graph.input[0].type.tensor_type.elem_type == TensorProto.DOUBLE:
        return dict(zip(names, ReferenceEvaluator(model, new_ops=NEW_OPS).run(None, feeds), strict=True))
    session = onnxruntime.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(None, feeds), strict=True))


def exact_session(model: bytes) -> onnxruntime.InferenceSession:
    """Return a session whose products of integers do not overflow: they do on an x86 processor without VNNI.

    ONNX Runtime 1.32 cannot open every graph so.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class ConvTranspose(OpRun):
    """In float64 by torch: onnx's own mixes up groups of more than one channel."""

    op_domain = ""

    def _run(self, x: Any, w: Any, bias: Any = None, **attributes: Any) -> Any:
        begin, end = np.split(np.asarray(attributes["pads"]), 2)
        full = F.conv_transpose2d(
            torch.from_numpy(x.copy()),
            torch.from_numpy(w.copy()),
            None if bias is None else torch.from_numpy(bias),
            stride=attributes["strides"],
            groups=attributes["group"],
            dilation=attributes["dilations"],
        )
        more = attributes["output_padding"]
        full = F.pad(full, (0, more[1], 0, more[0]))
        height, width = full.shape[2:]
        return (full[:, :, begin[0] : height - end[0], begin[1] : width - end[1]].numpy(),)


class Erf(OpRun):
    """In float64: onnx's own computes in float32."""

    op_domain = ""

    def _run(self, x: Any) -> Any:
        return (torch.erf(torch.from_numpy(np.asarray(x))).numpy(),)


class LogSoftmax(OpRun):
    """Finite where softmax is 0: onnx's own takes the logarithm of it."""

    op_domain = ""

    def _run(self, x: Any, axis: int = -1) -> Any:
        below = x - x.max(axis=axis, keepdims=True)
        return (below - np.log(np.exp(below).sum(axis=axis, keepdims=True)),)


class Pad(OpRun):
    """With negative pads, which cut off, and round the image; onnx's own has neither."""

    op_domain = ""

    def _run(self, x: Any, pads: Any, value: Any = None, axes: Any = None, mode: str = "constant") -> Any:
        chosen = range(x.ndim) if axes is None else axes % x.ndim
        widths = dict(zip(chosen, zip(*np.split(pads, 2), strict=True), strict=True))
        for axis, (begin, end) in widths.items():
            x = x.take(range(max(-begin, 0), x.shape[axis] - max(-end, 0)), axis)
        positive = [tuple(max(pad, 0) for pad in widths.get(axis, (0, 0))) for axis in range(x.ndim)]
        constant = mode in ("constant", None)
        given = {"constant_values": 0.0 if value is None else value.item()} if constant else {}
        return (np.pad(x, positive, mode=mode or "constant", **given),)


NEW_OPS = [ConvTranspose, Erf, LogSoftmax, Pad]


def torch_gradient(function: Callable[[Any], Any], x: Any, cotangent: Any) -> Any:
    """Return autograd's gradient of <cotangent, function(x)>."""
    images = torch.from_numpy(x).requires_grad_(True)
    (gradient,) = torch.autograd.grad((function(images) * torch.from_numpy(cotangent)).sum(), images)
    return gradient.numpy()


@dataclass(frozen=True)
class Exported:
    """A network, and what was made of it."""

    network: nn.Module
    forward: Prepared
    gradient: ModelProto

    def session(self) -> OrtSession:
        return OrtSession(to_bytes(self.forward.model), to_bytes(self.gradient), precision="fp32", threads=1)

    def feeds(self, n: int, seed: int = 0) -> dict[str, Any]:
        """Random images, labels and targets, with all losses and a cotangent mixed in each row."""
        random = np.random.default_rng(seed)
        eye = np.eye(10, dtype=np.float32)
        return {
            "input": random.random((n, 1, SIDE, SIDE), dtype=np.float32),
            "label": eye[random.integers(0, 10, n)],
            "target": eye[random.integers(0, 10, n)],
            "weights": random.random((n, 4), dtype=np.float32),
            "cotangent": random.standard_normal((n, 10)).astype(np.float32),
        }


def seeded_network(architecture: str) -> nn.Module:
    """A quarter-width network with the batch statistics of some noise, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(
            architecture,
            channels=1,
            classes=10,
            width=0.25,
            depth=ARCHITECTURES[architecture],
            mean=[0.3],
            std=[0.35],
        )
        with torch.no_grad():
            for _ in range(5):
                network(torch.rand(32, 1, SIDE, SIDE))
    return network.eval().requires_grad_(False)

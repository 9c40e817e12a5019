"""A linear task, and a tiny bundle whose gradient graph is written by hand, so that it owes nothing to export."""

import io

import numpy as np
import onnx
from onnx import parser

from runtime.bundle.manifest import EVALUATION, FileEntry, Graph, InputShape, Manifest
from runtime.files import sha256
from runtime.spec import DataRecord as Data
from runtime.spec import Gate, ThreatModel

SHAPE = (1, 4, 4)
EPS = 0.01

FORWARD = """
<ir_version: 8, opset_import: ["" : 18]>
linear (float[B, 1, 4, 4] input) => (float[B, K] logits) {
  flat = Flatten(input)
  logits = Gemm(flat, w, b)
}
"""

HALVED = FORWARD.replace("linear (", "halved (").replace(
    "  flat = Flatten(input)",
    """  half = Constant <value = float16[1] {0}> ()
  nothing = Cast <to = 1> (half)
  same = Add(input, nothing)
  flat = Flatten(same)""",
)
"""The same classifier, to the bit; a float16 in it makes it fp16."""
IN_BYTES = FORWARD.replace("linear (", "quantised (").replace(
    "  flat = Flatten(input)",
    """  step = Constant <value_float = 0.007874> ()
  zero = Constant <value = int8 {0}> ()
  level = QuantizeLinear(input, step, zero)
  stepped = DequantizeLinear(level, step, zero)
  flat = Flatten(stepped)""",
)
"""The linear classifier whose input is rounded to 127 levels: without a slope of its own."""
ROUNDED = FORWARD.replace("linear (", "rounded (").replace(
    "  flat = Flatten(input)",
    """  steps = Constant <value_float = 127.0> ()
  many = Mul(input, steps)
  level = Round(many)
  stepped = Div(level, steps)
  flat = Flatten(stepped)""",
)
"""The same by arithmetic."""

GRADIENT = """
<ir_version: 8, opset_import: ["" : 18]>
gradient (float[B, 1, 4, 4] input, float[B, 3] label, float[B, 4] weights, float[B, 3] cotangent)
  => (float[B, 3] logits, float[B] value, float[B, 1, 4, 4] gradient)
<int64[1] last = {1}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3},
 float far = {1000}, int64[1,3] classes = {0, 1, 2}, float unit = {1}> {
  flat = Flatten(input)
  logits = Gemm(flat, w, b)
  w_ce = Slice(weights, zero, one, last)
  w_margin = Slice(weights, one, two, last)
  w_dlr = Slice(weights, two, three, last)
  p = Softmax <axis = 1> (logits)
  rest = Sub(unit, label)
  others = Mul(p, rest)
  wrong = ReduceSum(others, last)
  seed = Mul(label, wrong)
  ce = Sub(others, seed)
  log_p = LogSoftmax <axis = 1> (logits)
  ce_terms = Mul(log_p, label)
  ce_minus = ReduceSum(ce_terms, last)
  ce_value = Neg(ce_minus)
  mask = Mul(label, far)
  masked = Sub(logits, mask)
  runner_up = ArgMax <axis = 1> (masked)
  is_runner_up = Equal(classes, runner_up)
  runner_up_hot = Cast <to = 1> (is_runner_up)
  margin = Sub(runner_up_hot, label)
  margin_terms = Mul(margin, logits)
  margin_value = ReduceSum(margin_terms, last)
  top = ArgMax <axis = 1> (logits)
  bottom = ArgMin <axis = 1> (logits)
  is_top = Equal(classes, top)
  is_bottom = Equal(classes, bottom)
  top_hot = Cast <to = 1> (is_top)
  bottom_hot = Cast <to = 1> (is_bottom)
  spread = Sub(top_hot, bottom_hot)
  spread_terms = Mul(spread, logits)
  spread_value = ReduceSum(spread_terms, last)
  dlr_value = Div(margin_value, spread_value)
  dlr_below = Mul(dlr_value, spread)
  dlr_above = Sub(margin, dlr_below)
  dlr = Div(dlr_above, spread_value)
  v_ce = Mul(w_ce, ce)
  v_margin = Mul(w_margin, margin)
  v_dlr = Mul(w_dlr, dlr)
  v_two = Add(v_ce, v_margin)
  v_named = Add(v_two, v_dlr)
  v = Add(v_named, cotangent)
  flat_gradient = Gemm <transB = 1> (v, w)
  shape = Shape(input)
  gradient = Reshape(flat_gradient, shape)
  a = Mul(w_ce, ce_value)
  c = Mul(w_margin, margin_value)
  e = Mul(w_dlr, dlr_value)
  ac = Add(a, c)
  column = Add(ac, e)
  value = Squeeze(column, last)
}
"""


def graph(text, weight, bias):
    """Return the bytes of a graph in onnx's text form, with initializers w [D, K] and b [K]."""
    model = parser.parse_model(text.replace("[B, K]", f"[B, {len(bias)}]"))
    for name, array in (("w", weight.T), ("b", bias)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def linear_task(classes=3, n=60, seed=0):
    """Return (weight [K, 16], bias [K], images in [0.3, 0.7] [n, 1, 4, 4], labels): about 9 in 10 are right."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(classes, 16)).astype(np.float32)
    bias = (-weight.sum(axis=1) / 2).astype(np.float32)
    images = random.uniform(0.3, 0.7, (n, *SHAPE)).astype(np.float32)
    labels = (images.reshape(n, -1) @ weight.T + bias).argmax(axis=1)
    wrong = random.random(n) < 0.1
    return weight, bias, images, np.where(wrong, (labels + 1) % classes, labels)


def write_bundle(path, files, *, n, gate=None, **changes):
    """Write a bundle of `files` (name to bytes) with a manifest that fits them."""
    fields = {
        "name": "tiny", "created": "2026-01-01T00:00:00Z", "input": InputShape(channels=1, height=4, width=4),
        "classes": ("a", "b", "c"), "threat_model": ThreatModel(eps=EPS), "ships": "fp32",
        "graphs": {"fp32": Graph(forward="model.fp32.onnx", gradient="model.fp32.grad.onnx", opset=18)},
        "evaluation": Data(name="tiny/test", n=n, sha256="0" * 64), "gate": gate or Gate(),
        "files": {name: FileEntry(sha256=sha256(data), size=len(data)) for name, data in files.items()},
    } | changes  # fmt: skip
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    (path / "manifest.json").write_bytes(Manifest(**fields).to_json())
    return path


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def bundle_files(task):
    """Return the files of the tiny bundle, name to bytes; images are uint8."""
    weight, bias, images, labels = task
    stored = np.round(images * 255).astype(np.uint8)
    return {
        "model.fp32.onnx": graph(FORWARD, weight, bias),
        "model.fp32.grad.onnx": graph(GRADIENT, weight, bias),
        EVALUATION: npz(images=stored, labels=labels, ids=np.arange(len(labels)) + 100),
    }

"""A softmax or sigmoid at the end of anyone's model: cut off by `pack`, or refused where it hides the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.adapt.adapt import adapt
from export.adapt.softmax import ties
from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from runtime.graph.facts import graph_facts
from tests.export.classifiers import torch_gradient
from tests.export.cuda.kernels import left_to_the_cpu
from tests.export.plain import BODY, LABELS, WEIGHTS, X, network, plain
from tests.export.strangers import command, gradient_of, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path

ENDS = {
    "Softmax": (["scores = Softmax <axis=1> (z)"], "Softmax"),
    "LogSoftmax": (["scores = LogSoftmax <axis=-1> (z)"], "LogSoftmax"),
    "Sigmoid": (["scores = Sigmoid (z)"], "Sigmoid"),
    "Softmax and an Identity": (["p = Softmax <axis=1> (z)", "scores = Identity (p)"], "Softmax"),
    "Softmax of four axes": (
        ["u = Reshape (z, deep)", "p = Softmax <axis=1> (u)", "scores = Reshape (p, back)"],
        "Softmax",
    ),
    "Softmax written out": (
        [
            "top = ReduceMax <keepdims=1> (z, one)",
            "d = Sub (z, top)",
            "e = Exp (d)",
            "s = ReduceSum <keepdims=1> (e, one)",
            "scores = Div (e, s)",
        ],
        "Softmax",
    ),
}
AT_THE_END = {"one": np.asarray([1]), "deep": np.asarray([1, 4, 1, 1]), "back": np.asarray([1, 4])}


@pytest.mark.parametrize("name", ENDS)
def test_softmax_at_the_end_is_cut_off(name: str, data: Path, save: Any, tmp_path: Path) -> None:
    nodes, cut = ENDS[name]
    model = plain([*BODY, "z = Add (m, b2)", *nodes], constants={**WEIGHTS, **AT_THE_END})
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert f"the {cut} at its end cut off" in " / ".join(bundle.manifest.packed.changes)
    logits, expected = session_of(bundle).logits(X), network(torch.from_numpy(X)).numpy()
    gap = logits - expected
    np.testing.assert_allclose(gap - gap[:, :1], 0, atol=1e-5)  # the same but for what a softmax does not see


def saturated(end: str, scale: float) -> Any:
    """Return PLAIN with its logits multiplied, so that two classes or more come out as the same number."""
    nodes = [*BODY, "s = Add (m, b2)", "z = Mul (s, steep)", f"scores = {end} (z)"]
    return plain(nodes, constants={**WEIGHTS, "steep": scale})


@pytest.mark.parametrize("end", ["Sigmoid", "LogSoftmax <axis=1>", "Softmax <axis=1>"])
def test_saturated_end_that_keeps_its_predictions_is_packed(end: str, data: Path, save: Any, tmp_path: Path) -> None:
    model = saturated(end, 1000.0)
    kept = agreeing(model)
    assert kept.any()
    np.savez(data, x=X[kept], y=LABELS[kept])
    bundle = packed(save(model), data, tmp_path / "bundle")
    parity = bundle.manifest.graphs["fp32"].parity
    assert parity is not None
    assert parity.prediction_agreement == 1


def agreeing(model: Any) -> Any:
    """Return on which images of X the original answers as its own logits do."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray([session.run(None, {"image": x[None]})[0].argmax() for x in X]) == LABELS


@pytest.mark.parametrize("end", [["scores = Sigmoid (z)"], ["p = Sigmoid (z)", "scores = Cast <to=10> (p)"]])
@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_saturated_sigmoid_is_answered_as_the_file_answers(
    end: list[str], scale: float, data: Path, save: Any, tmp_path: Path
) -> None:
    nodes = [*BODY, "s = Add (m, b2)", "z = Mul (s, steep)", *end]
    model = plain(nodes, constants={**WEIGHTS, "steep": scale})
    if len(end) > 1:
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    bundle = packed(save(model), data, tmp_path / "bundle")
    x = np.random.default_rng(1).random((500, 3, 8, 8), dtype=np.float32)
    file = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = np.concatenate([file.run(None, {"image": image[None]})[0] for image in x])
    assert ties(answers) > 10  # else nothing would be tested
    assert (answers.argmax(axis=1) != network(torch.from_numpy(x)).numpy().argmax(axis=1)).any()
    same = session_of(bundle).logits(x).argmax(axis=1) == answers.argmax(axis=1)
    assert same.mean() >= 0.99  # a sigmoid's last bits decide where it saturates, and other kernels have others


@pytest.mark.parametrize("opset", [18, 20])
def test_ties_are_kept_by_operations_that_every_gpu_has_and_no_step(opset: int) -> None:
    model = plain([*BODY, "z = Add (m, b2)", "scores = Sigmoid (z)"], opset=opset)
    forward = prepare(adapt(model, (3, 8, 8)).model)
    for graph in (forward.model, gradient_graph(forward)):
        assert not any(left_to_the_cpu(graph).values())
    assert not graph_facts(to_bytes(forward.model)).stepped


def test_gradient_of_tied_logits_is_that_of_what_the_sigmoid_takes(data: Path, save: Any, tmp_path: Path) -> None:
    session = session_of(packed(save(saturated("Sigmoid", 1000.0)), data, tmp_path / "bundle"))
    cotangent = np.tile(np.float32([1e-3, 0, 0, 0]), (len(X), 1))  # of a class that is under the knee on all
    expected = torch_gradient(network, X, 1000 * cotangent)
    assert (network(torch.from_numpy(X))[:, 0] < 0).all()
    np.testing.assert_allclose(gradient_of(session, X, cotangent), expected, rtol=0, atol=1e-4)


def test_precision_made_of_a_sigmoid_answers_by_its_logits(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "z = Add (m, b2)", "scores = Sigmoid (z)"])
    bundle = packed(save(model), data, tmp_path / "bundle", "--precision", "fp16")
    half = onnx.load_from_string(bundle.read(bundle.manifest.graphs["fp16"].forward))
    assert not {"Sigmoid", "Max"} & {node.op_type for node in half.graph.node}
    np.testing.assert_allclose(session_of(bundle).logits(X), network(torch.from_numpy(X)), atol=0.02)


def test_ties_of_a_saturated_end_are_said(data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(saturated("Sigmoid", 1000.0)), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert "saturated" in " ".join(bundle.manifest.packed.changes)


def test_softmax_that_is_cast_to_integers_is_not_cut(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = [*BODY, "z = Add (m, b2)", "p = Softmax <axis=1> (z)", "i = Cast <to=7> (p)", "scores = Cast <to=1> (i)"]
    result = command("pack", save(plain(nodes)), "--data", data, "--out", tmp_path / "bundle")
    assert "cut off" not in result.output


def test_softmax_written_out_without_its_maximum_stays(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = ["e = Exp (z)", "s = ReduceSum <keepdims=1> (e, one)", "scores = Div (e, s)"]
    model = plain([*BODY, "z = Add (m, b2)", *nodes], constants={**WEIGHTS, **AT_THE_END})
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert "probabilities" in bundle.manifest.packed.changes[-1]
    assert "cut off" not in " ".join(bundle.manifest.packed.changes)


QUANTISED = {
    "Softmax": ["p = Softmax <axis=1> (z)", "q = QuantizeLinear (p, e, n)", "scores = DequantizeLinear (q, e, n)"],
    "Sigmoid": ["p = Sigmoid (z)", "q = QuantizeLinear (p, e, n)", "scores = DequantizeLinear (q, e, n)"],
    "QLinearSoftmax": [
        "q = QuantizeLinear (z, t, m8)",
        "p = com.microsoft.QLinearSoftmax <axis=-1, opset=13> (q, t, m8, e, n)",
        "scores = DequantizeLinear (p, e, n)",
    ],
}


@pytest.mark.parametrize("end", QUANTISED)
def test_quantised_end_is_refused_by_its_name(end: str, data: Path, save: Any, tmp_path: Path) -> None:
    steps = {"e": np.float32(1 / 256), "n": np.uint8(0), "t": np.float32(1 / 16), "m8": np.uint8(128)}
    model = plain([*BODY, "z = Add (m, b2)", *QUANTISED[end]], constants={**WEIGHTS, **steps})
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert f"ends in a quantised {end.removeprefix('QLinear')}" in result.stderr
    assert "quantise the model without" in result.stderr


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_sigmoid_of_other_ties_than_in_float32_is_refused(kind: int, data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "z = Add (m, b2)", f"d = Cast <to={kind}> (z)", "scores = Sigmoid (d)"])
    model.graph.output[0].type.tensor_type.elem_type = kind
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "ends in a Sigmoid in float" in result.stderr) == (3, True), result.output


@pytest.mark.parametrize(
    "nodes",
    [
        ["p = Softmax <axis=1> (z)", "q = Softmax <axis=1> (m)", "s = Add (p, q)", "scores = Mul (s, half)"],
        ["p = Softmax <axis=1> (z)", "s = Mul (p, three)", "t = Add (s, quarter)", "scores = Mul (t, quarter)"],
    ],
    ids=["the mean of two", "mixed with chance"],
)
def test_probabilities_that_cannot_be_turned_back_are_said(
    nodes: list[str], data: Path, save: Any, tmp_path: Path
) -> None:
    constants = {**WEIGHTS, "half": 0.5, "three": 3.0, "quarter": 0.25}
    bundle = packed(save(plain([*BODY, "z = Add (m, b2)", *nodes], constants=constants)), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert "probabilities" in bundle.manifest.packed.changes[-1]


def test_softmax_over_anything_but_the_classes_stays(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = [
        *BODY,
        "z = Add (m, b2)",
        "u = Reshape (z, pairs)",
        "p = Softmax <axis=2> (u)",
        "scores = Reshape (p, back)",
    ]
    constants = {**WEIGHTS, "pairs": np.asarray([1, 2, 2]), "back": np.asarray([1, 4])}
    bundle = packed(save(plain(nodes, constants=constants)), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert "cut" not in " ".join(bundle.manifest.packed.changes)
    z = network(torch.from_numpy(X))
    expected = z.reshape(-1, 2, 2).softmax(2).flatten(1).numpy()
    np.testing.assert_allclose(session_of(bundle).logits(X), expected, rtol=0, atol=1e-6)

"""A softmax or sigmoid at the end of anyone's model: cut off by `pack`, or refused where it hides the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.export.plain import BODY, LABELS, WEIGHTS, X, network, plain
from tests.export.strangers import command, packed, session_of

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


def test_softmax_whose_ties_hide_the_logits_is_refused_by_its_predictions(
    data: Path, save: Any, tmp_path: Path
) -> None:
    model = saturated("Sigmoid", 1000.0)
    assert not agreeing(model).all()
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert "predict" in result.stderr
    assert "saturated" in result.stderr


def test_ties_of_a_saturated_end_are_said(data: Path, save: Any, tmp_path: Path) -> None:
    model = saturated("Sigmoid", 1000.0)
    np.savez(data, x=X[agreeing(model)], y=LABELS[agreeing(model)])
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert "saturated" in bundle.manifest.packed.changes[-1]


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

"""LSTM, GRU and RNN written out step by step: the same answers and gradients as torch's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.export.classifiers import torch_gradient
from tests.export.strangers import command, export, gradient_of, packed, session_of, stranger

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
X = RANDOM.random((8, 1, 5, 6), dtype=np.float32)
COTANGENT = RANDOM.standard_normal((8, 3)).astype(np.float32)


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: str, *, both: bool, layers: int = 1, end: bool = False) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(6, 4, batch_first=True, bidirectional=both, num_layers=layers)
        self.head = nn.Linear((4 if end else 20) * (2 if both and not end else 1), 3)
        self.end = end

    def forward(self, x: Any) -> Any:
        rows, state = self.cell(x[:, 0])
        if self.end:
            last = state[0] if isinstance(state, tuple) else state
            return self.head(last[-1])
        return self.head(rows.flatten(1))


CASES = {
    "LSTM": ("LSTM", {"both": False}),
    "LSTM in both directions": ("LSTM", {"both": True}),
    "LSTM of two layers, its last state": ("LSTM", {"both": False, "layers": 2, "end": True}),
    "GRU": ("GRU", {"both": False}),
    "GRU in both directions, its last state": ("GRU", {"both": True, "end": True}),
    "RNN": ("RNN", {"both": True}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_recurrent_network_is_judged_as_it_came_with_torchs_gradient(
    name: str, dynamic: bool, tmp_path: Path
) -> None:
    kind, options = CASES[name]
    torch.manual_seed(0)
    network = Rows(kind, **options).eval()  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(network, torch.from_numpy(X[:1]), tmp_path / "model.onnx", dynamo=False, dynamic=dynamic, opset=17)
    with torch.no_grad():
        labels = network(torch.from_numpy(X)).argmax(dim=1).numpy()
    np.savez(tmp_path / "set.npz", x=X, y=labels)
    session = session_of(packed(tmp_path / "model.onnx", tmp_path / "set.npz", tmp_path / "bundle"))
    expected = network(torch.from_numpy(X)).detach().numpy()
    for batch in (1, 5, 8):
        np.testing.assert_allclose(session.logits(X[:batch]), expected[:batch], rtol=0, atol=1e-5)
    gradient = torch_gradient(network, X, COTANGENT)
    assert gradient.any()
    np.testing.assert_allclose(gradient_of(session, X, COTANGENT), gradient, rtol=0, atol=1e-5)


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


BOUND = 0.5


def weights_of(kind: str) -> dict[str, Any]:
    """Return weights of a cell of six inputs and four states, that reach the bound."""
    random, gates = np.random.default_rng(1), GATES[kind]
    shapes = {"w": (1, 4 * gates, 6), "r": (1, 4 * gates, 4), "b": (1, 8 * gates), "head": (20, 3)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def recurrent(kind: str, more: str = "", *before: str, batch: Any = "n", **constants: Any) -> Any:
    """Build a model of one cell that reads an image [1, 5, 6] row by row."""
    given = {"rows": np.asarray([0, 5, 6]), "flat": np.asarray([0, 20]), "axis": np.asarray([1]), **constants}
    nodes = [
        *before,
        "x = Reshape (image, rows)",
        "s = Transpose <perm=[1,0,2]> (x)",
        f"y, h = {kind} <hidden_size=4{more}> (s, w, r, b{', lengths' if before or constants else ''})",
        "z = Squeeze (y, axis)",
        "t = Transpose <perm=[1,0,2]> (z)",
        "f = Reshape (t, flat)",
        "scores = MatMul (f, head)",
    ]
    return stranger(nodes, dims=[batch, 1, 5, 6], out=[batch, 3], constants={**weights_of(kind), **given})


def clipped(kind: str, x: Any, before: bool) -> Any:
    """Return what `recurrent` answers with a clip, in torch, by ONNX's own words."""
    w, r, b, head = (torch.from_numpy(each).to(x.dtype) for each in weights_of(kind).values())
    w, r, wb, rb = w[0].T, r[0].T, *b[0].chunk(2)
    h = c = torch.zeros(len(x), 4, dtype=x.dtype)
    rows = []
    for row in x[:, 0].unbind(1):
        given, recalled = row @ w + wb, h @ r + rb
        if kind == "LSTM":
            i, o, f, new = (given + recalled).clamp(-BOUND, BOUND).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * new.tanh()
            h = o.sigmoid() * c.tanh()
        elif kind == "GRU":
            z, reset = (given + recalled)[:, :8].clamp(-BOUND, BOUND).sigmoid().chunk(2, 1)
            last = reset * recalled[:, 8:] if before else (reset * h) @ r[:, 8:] + rb[8:]
            h = (1 - z) * (given[:, 8:] + last).clamp(-BOUND, BOUND).tanh() + z * h
        else:
            h = (given + recalled).clamp(-BOUND, BOUND).tanh()
        rows.append(h)
    return torch.cat(rows, 1) @ head


def check(model: Any, function: Any, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    expected = function(torch.from_numpy(X)).numpy()
    np.savez(tmp_path / "set.npz", x=X, y=expected.argmax(axis=1))
    session = session_of(packed(tmp_path / "model.onnx", tmp_path / "set.npz", tmp_path / "bundle"))
    np.testing.assert_allclose(session.logits(X), expected, rtol=0, atol=1e-5)
    gradient = torch_gradient(function, X, COTANGENT)
    np.testing.assert_allclose(gradient_of(session, X, COTANGENT), gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "before"), [("LSTM", False), ("GRU", False), ("GRU", True), ("RNN", False)])
def test_cell_that_clips_has_torchs_gradient(kind: str, before: bool, tmp_path: Path) -> None:
    more = ", linear_before_reset=1" if before else ""
    check(recurrent(kind, f"{more}, clip={BOUND}"), lambda x: clipped(kind, x, before), tmp_path)


COUNTED = ("size = Shape <end=1> (image)", "lengths = Expand (each, size)")


@pytest.mark.parametrize(
    "lengths",
    [{"lengths": np.asarray([5], np.int32), "batch": 1}, {"each": np.asarray([5], np.int32)}],
    ids=["stored", "counted"],
)
def test_lengths_of_the_whole_sequence_are_left_out(lengths: Any, tmp_path: Path) -> None:
    model = recurrent("LSTM", f", clip={BOUND}", *(COUNTED if "each" in lengths else ()), **lengths)
    check(model, lambda x: clipped("LSTM", x, False), tmp_path)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            recurrent("LSTM", batch=1, lengths=np.asarray([4], np.int32)),
            "node 'y' (LSTM) reads sequences of 5 up to the lengths [4]",
        ),
        (
            recurrent("GRU", "", *COUNTED, each=np.asarray([4], np.int32)),
            "node 'y' (GRU) reads sequences of 5 up to the lengths [4]",
        ),
        (recurrent("LSTM", ", input_forget=1"), "(LSTM): edgeproof has no derivative of this use of 'LSTM'"),
    ],
)
def test_another_use_of_a_cell_is_refused_by_its_name(model: Any, words: str, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "set.npz", x=X, y=np.zeros(len(X), np.int64))
    result = command("pack", tmp_path / "model.onnx", "--data", tmp_path / "set.npz", "--out", tmp_path / "bundle")
    assert (result.exit_code, words in result.stderr) == (3, True), result.output

"""Anyone's ONNX file, made a bundle by `pack` on the command line: what it says, and what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from runtime.bundle.manifest import MANIFEST
from runtime.bundle.opening import open_bundle
from tests.export.foreign.plain import BODY, X, check_as_torch, network, no_rule, plain
from tests.export.foreign.strangers import command, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_done_is_said_on_stdout_and_in_the_card(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "z = Add (m, b2)", "scores = Softmax <axis=-1> (z)"])
    result = command(
        "pack", save(model), "--data", data, "--out", tmp_path / "b", "--classes", "a,b,c,d", "--name", "n"
    )
    assert result.exit_code == 0, result.output
    assert "Softmax at its end cut off" in result.stdout
    assert "same prediction 100.00%" in result.stdout
    card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "Packed from model.onnx" in card
    assert "a, b, c, d" in card
    assert "8/255" in card


def test_same_file_gives_the_same_graphs(data: Path, save: Any, tmp_path: Path) -> None:
    model = save(plain())
    first, second = (packed(model, data, tmp_path / name).manifest for name in ("one", "two"))
    assert first.graphs == second.graphs
    files = [{n: e for n, e in m.files.items() if n.endswith((".onnx", ".npz"))} for m in (first, second)]
    assert files[0] == files[1]
    assert open_bundle(tmp_path / "one").manifest == first
    assert MANIFEST in {path.name for path in (tmp_path / "one").iterdir()}


def test_weights_in_a_file_beside_the_model_are_read(data: Path, tmp_path: Path) -> None:
    onnx.save(plain(), tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    bundle = packed(tmp_path / "model.onnx", data, tmp_path / "bundle")
    (tmp_path / "weights.bin").unlink()
    check_as_torch(session_of(bundle))


def test_model_without_a_rule_is_packed_without_gradients_on_request(data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(no_rule()), data, tmp_path / "bundle", "--gradient", "none")
    assert bundle.manifest.graphs["fp32"].gradient is None
    np.testing.assert_allclose(
        session_of(bundle).logits(X), network(torch.from_numpy(X)).cumsum(1).numpy(), rtol=0, atol=1e-5
    )

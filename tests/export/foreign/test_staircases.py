"""Models with steps, packed: what the bundle says of their gradient, and what they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.export.classifiers import torch_gradient
from tests.export.plain import BODY, WEIGHTS, X, network, plain
from tests.export.strangers import command, gradient_of, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path


def test_staircases_are_named_in_manifest_and_card(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = ["t = Mul (image, k)", "u = Round (t)", "v = Div (u, k)", BODY[0].replace("image", "v"), *BODY[1:]]
    model = plain([*nodes, "scores = Add (m, b2)"], constants={**WEIGHTS, "k": 255.0})
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert (bundle.manifest.ships, bundle.manifest.graphs["fp32"].staircases) == ("fp32", ("Round u",))
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "The gradient goes straight through these nodes" in card
    assert "- fp32: <code>Round u</code>" in card
    session = session_of(bundle)
    assert session.card().facts.staircases == ("Round",)
    cotangent = np.ones((12, 4), np.float32)
    expected = torch_gradient(lambda x: network(x + ((x * 255).round() / 255 - x).detach()), X, cotangent)
    np.testing.assert_allclose(gradient_of(session, X, cotangent), expected, rtol=0, atol=1e-5)


def test_a_model_without_a_step_names_none(data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(plain()), data, tmp_path / "bundle")
    assert bundle.manifest.graphs["fp32"].staircases == ()
    assert "straight through" not in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


def test_a_model_of_quantised_operators_is_int8(data: Path, save: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    constants = {
        "flat": np.asarray([1, 192]),
        "w": random.integers(-127, 128, (192, 4), dtype=np.int8),
        "zero": np.uint8(0),
        "none": np.int8(0),
        "middle": np.uint8(128),
        **{"in": 1 / 255, "weight": 0.01, "out": 0.1},
    }
    nodes = [
        "f = Reshape (image, flat)",
        "q = QuantizeLinear (f, in, zero)",
        "p = QLinearMatMul (q, in, zero, w, weight, none, out, middle)",
        "scores = DequantizeLinear (p, out, middle)",
    ]
    model = save(plain(nodes, constants=constants))
    result = command("pack", model, "--data", data, "--gradient", "none", "--out", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    assert '"ships": "int8"' in (tmp_path / "bundle" / "manifest.json").read_text()

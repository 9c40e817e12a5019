"""Anyone's ONNX file, made a bundle by `pack` on the command line: what it says, and what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from runtime.bundle.manifest import MANIFEST
from runtime.bundle.opening import open_bundle
from runtime.files import sha256
from tests.export.plain import BODY, X, check_as_torch, network, no_rule, plain
from tests.export.strangers import command, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_done_is_said_on_stdout_and_in_the_card(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "z = Add (m, b2)", "scores = Softmax <axis=-1> (z)"])
    result = command(
        "pack", save(model), "--data", data, "--out", tmp_path / "b", "--classes", "a,b,c,d", "--name", "n"
    )
    assert result.exit_code == 0, result.output
    assert "Softmax at its end cut off" in result.stdout
    assert "same prediction 100.00 %" in result.stdout
    card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "Packed from model.onnx" in card
    assert "how it was trained is not known" in card
    assert "recipe" not in card
    assert "    edgeproof verify BUNDLE\n" in card
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


EXTERNAL = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}


def test_weights_in_a_file_beside_the_model_are_read(data: Path, tmp_path: Path) -> None:
    onnx.save(plain(), tmp_path / "model.onnx", **EXTERNAL)
    bundle = packed(tmp_path / "model.onnx", data, tmp_path / "bundle")
    (tmp_path / "weights.bin").unlink()
    check_as_torch(session_of(bundle))


def test_a_models_digest_is_of_its_file_and_of_the_weights_beside_it(data: Path, tmp_path: Path) -> None:
    found = {}
    for name, scale, how in (("whole", 1.0, {}), ("apart", 1.0, EXTERNAL), ("trained", 2.0, EXTERNAL)):
        model = plain()
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                weights = np.float32(scale) * onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.onnx"
        onnx.save(model, path, **how)
        origin = packed(path, data, tmp_path / name / "bundle").manifest.packed
        assert origin is not None
        found[name] = origin.sha256, sha256(path.read_bytes())
    assert found["whole"][0] == found["whole"][1]
    assert found["apart"][1] == found["trained"][1]
    assert found["apart"][0] != found["trained"][0]


def test_model_without_a_rule_is_packed_without_gradients_on_request(data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(no_rule()), data, tmp_path / "bundle", "--gradient", "none")
    assert bundle.manifest.graphs["fp32"].gradient is None
    np.testing.assert_allclose(
        session_of(bundle).logits(X), network(torch.from_numpy(X)).sinh().numpy(), rtol=0, atol=1e-5
    )


def test_model_whose_nodes_are_in_no_order_is_packed_as_the_sorted_one(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))

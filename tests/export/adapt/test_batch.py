"""Models that name their batch, freed of it by `pack`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.export.plain import BODY, W2, WEIGHTS, X, check_as_torch, plain
from tests.export.strangers import packed, session_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("weights_as_inputs", [True, False])
@pytest.mark.parametrize("dims", [[1, 3, 8, 8], ["n", 3, 8, 8], ["n", 3, "h", "w"], [4, 3, 8, 8]])
def test_batch_and_sizes_of_any_kind_are_taken(
    dims: list[Any], weights_as_inputs: bool, data: Path, save: Any, tmp_path: Path
) -> None:
    flat = np.asarray([dims[0] if dims[0] == 4 else -1 if dims[0] == "n" else 1, 96])
    model = plain(
        dims=dims,
        out=[dims[0], 4],
        constants={**WEIGHTS, "flat": flat},
        weights_as_inputs=weights_as_inputs,
    )
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


FLATTENINGS = {
    "Flatten": ["f = Flatten (r)"],
    "sizes computed from the batch": [
        "s = Shape (r)",
        "b = Gather <axis=0> (s, zero)",
        "u = Unsqueeze (b, noughts)",
        "t = Concat <axis=0> (u, rest)",
        "f = Reshape (r, t)",
    ],
    "sizes in a Constant": ["t = Constant <value_ints=[1,96]> ()", "f = Reshape (r, t)"],
    "Squeeze": ["v = Reshape (r, tall)", "f = Squeeze (v, places)"],
    "Split, Concat and Slice": [
        "p, q = Split <axis=1> (r, halves)",
        "j = Concat <axis=1> (p, q)",
        "k = Slice (j, noughts, ones, noughts)",
        "f = Flatten (k)",
    ],
    "Expand": ["e = Expand (r, same)", "f = Flatten (e)"],
    "Gather of all, in order": ["l = Reshape (r, minus)", "g = Gather (l, order)", "f = Flatten (g)"],
    "Resize by sizes": ['e = Resize <mode="nearest"> (r, , , same)', "f = Flatten (e)"],
}


@pytest.mark.parametrize("name", FLATTENINGS)
def test_batch_named_anywhere_in_the_graph_is_freed(name: str, data: Path, save: Any, tmp_path: Path) -> None:
    constants = {
        **WEIGHTS,
        "zero": np.asarray(0),
        "noughts": np.asarray([0]),
        "ones": np.asarray([1]),
        "rest": np.asarray([96]),
        "tall": np.asarray([1, 96, 1, 1]),
        "halves": np.asarray([2, 4]),
        "same": np.asarray([1, 6, 4, 4]),
        "places": np.asarray([2, 3]),
        "minus": np.asarray([-1]),
        "order": np.arange(96).reshape(1, 6, 4, 4),
    }
    model = plain([*BODY[:2], *FLATTENINGS[name], "m = MatMul (f, w2)", "scores = Add (m, b2)"], constants=constants)
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


def test_squeeze_without_axes_spares_a_batch_of_one(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = [*BODY[:2], "v = Reshape (r, tall)", "f = Squeeze (v)", "m = MatMul (f, w2)", "scores = Add (m, b2)"]
    constants = {**WEIGHTS, "tall": np.asarray([-1, 96, 1, 1])}
    model = plain(nodes, dims=["n", 3, 8, 8], out=["n", 4], constants=constants)
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


@pytest.mark.parametrize("stored", ["floats", "integers"])
def test_class_token_is_joined_to_every_image(stored: str, data: Path, save: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    whole = random.integers(-60, 60, (1, 1, 64)).astype(np.int8)
    token = whole * np.float32(0.03125)
    dequantised = ["token = DequantizeLinear (whole, scale)"] if stored == "integers" else []
    head = random.standard_normal((256, 4)).astype(np.float32) / 9
    model = plain(
        [
            *dequantised,
            "p = Reshape (image, patches)",
            "j = Concat <axis=1> (token, p, token)",
            "g = Gather <axis=1> (j, four)",
            "f = Reshape (g, flat)",
            "scores = MatMul (f, head)",
        ],
        constants={
            "patches": np.asarray([1, 3, 64]),
            **({"whole": whole, "scale": np.float32(0.03125)} if dequantised else {"token": token}),
            "four": np.asarray([4, 0, 3, 1]),
            "flat": np.asarray([1, 256]),
            "head": head,
        },
    )

    def function(x: Any) -> Any:
        rows = torch.from_numpy(token).expand(len(x), 1, 64)
        joined = torch.cat([rows, x.reshape(-1, 3, 64), rows], dim=1)
        return joined[:, [4, 0, 3, 1]].flatten(1) @ torch.from_numpy(head)

    np.savez(data, x=X, y=function(torch.from_numpy(X)).argmax(1).numpy())
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")), function=function)


@pytest.mark.parametrize(
    ("mean", "said"), [("p = ReduceMean <keepdims=0> (r, one)", True), ("p = Identity (f)", False)]
)
def test_logits_whose_last_bits_depend_on_the_batch_are_said(
    mean: str, said: bool, data: Path, save: Any, tmp_path: Path
) -> None:
    nodes = [*BODY[:3], mean, "g = Flatten (p)", "scores = MatMul (g, w2)"]
    w2 = np.random.default_rng(3).standard_normal((16, 4)).astype(np.float32) if said else W2
    model = plain(nodes, constants={**WEIGHTS, "w2": w2, "one": np.asarray([1])})
    np.savez(data, x=X, y=np.zeros(len(X), np.int64))
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert ("in another batch" in " ".join(bundle.manifest.packed.changes)) == said

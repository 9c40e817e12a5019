"""Models that want their images in another way, or answer more than logits, behind edgeproof's interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from export.graph.ties import TIES
from tests.export.plain import (
    BODY,
    LABELS,
    PLAIN,
    WEIGHTS,
    X,
    check_as_torch,
    network,
    plain,
    tensorflow_shaped,
)
from tests.export.strangers import packed, session_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        (["--mean", ".49,.48,.45", "--std", ".25,.24,.26"], [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]),
        (["--mean", "0.5", "--std", "0.25"], [0.5], [0.25]),
        (["--std", "1/255"], [0.0], [1 / 255]),
    ],
)
def test_normalisation_goes_into_the_graph(
    options: list[str], mean: Any, std: Any, data: Path, save: Any, tmp_path: Path
) -> None:
    m, s = (torch.tensor(values).reshape(-1, 1, 1) for values in (mean, std))

    def function(x: Any) -> Any:
        return network((x - m) / s) / 100

    nodes = [*BODY, "z = Add (m, b2)", "scores = Div (z, hundred)"]
    model = plain(nodes, constants={**WEIGHTS, "hundred": np.float32(100)})
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle", *options)), function=function)


def test_normalisation_of_its_own_is_differentiated(data: Path, save: Any, tmp_path: Path) -> None:
    half = np.full((1, 3, 1, 1), 0.5, np.float32)
    nodes = ["s = Sub (image, half)", "n = Div (s, half)", *[line.replace("image", "n") for line in PLAIN]]
    bundle = packed(save(plain(nodes, constants={**WEIGHTS, "half": half})), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle), function=lambda x: network((x - 0.5) / 0.5))


@pytest.mark.parametrize("option", [[], ["--layout", "nhwc"]])
@pytest.mark.parametrize("channels_last", [True, False])
def test_images_in_either_layout_serve_a_model_in_either(
    channels_last: bool, option: list[str], data: Path, save: Any, tmp_path: Path
) -> None:
    np.savez(data, x=X.transpose(0, 2, 3, 1) if channels_last else X, y=LABELS)
    check_as_torch(session_of(packed(save(tensorflow_shaped(15)), data, tmp_path / "one", *option)))
    check_as_torch(session_of(packed(save(plain()), data, tmp_path / "two", *option)))


def test_one_of_two_outputs_is_taken_where_only_it_fits(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain()
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 6, 4, 4]))
    bundle = packed(save(model), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle))
    assert bundle.manifest.packed is not None
    assert "only scores kept" in " ".join(bundle.manifest.packed.changes)


def test_a_node_that_is_called_as_ours_is_differentiated_as_any_other(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "a = Add (m, b2)", "low = Mul (a, half)", "scores = Max (low, a)"],
                  constants={**WEIGHTS, "half": np.float32(0.5)})  # fmt: skip
    model.graph.node[-1].name = TIES
    function = torch.nn.LeakyReLU(0.5)
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")), function=lambda x: function(network(x)))

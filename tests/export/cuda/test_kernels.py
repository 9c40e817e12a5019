"""Every graph that we write is one that ONNX Runtime's CUDA provider takes whole, by the table of its kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch

from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from export.precision.calibrate import Calibration, in_int8
from export.precision.half import in_float16
from runtime.images.image_set import ImageSet
from tests.export.classifiers import SIDE, classifier
from tests.export.cuda.kernels import TABLE, left_to_the_cpu, optimised
from tests.export.foreign import test_architectures as foreign
from tests.export.strangers import export, packed, pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.graph.passes import Prepared
    from tests.export.classifiers import Exported


def everywhere(left: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(TABLE, left)


def calibration(image: tuple[int, int, int]) -> Calibration:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, *image), dtype=np.uint8)
    return Calibration(ImageSet("noise", pixels, np.zeros(8, np.int64), np.arange(8)))


PRECISIONS: dict[str, Callable[[Prepared, tuple[int, int, int]], Prepared]] = {
    "fp32": lambda forward, image: forward,
    "fp16": lambda forward, image: in_float16(forward),
    "int8": lambda forward, image: in_int8(forward, calibration(image)),
}


def check(forward: Prepared, place: Path) -> None:
    """Hold a classifier and its gradient to the table, as they are written and as ONNX Runtime rewrites them.

    Both: on the CPU it also brings float16 to float32, where it has no kernel for it.
    """
    for graph in (forward.model, gradient_graph(forward)):
        for model in (graph, optimised(to_bytes(graph), place / "optimised.onnx")):
            assert left_to_the_cpu(model) == everywhere([])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cuda_takes_every_graph_of_our_networks_whole(exported: Exported, precision: str, tmp_path: Path) -> None:
    check(PRECISIONS[precision](exported.forward, (1, SIDE, SIDE)), tmp_path)


@pytest.mark.parametrize("name", foreign.BY_SPEED)
def test_cuda_takes_every_graph_of_other_peoples_networks_whole(name: str, tmp_path: Path) -> None:
    image = 3, foreign.ARCHITECTURES[name].side, foreign.ARCHITECTURES[name].side
    x = pictures(2, image)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(2))
    model = tmp_path / "model.onnx"
    export(foreign.network_of(name), torch.from_numpy(x[:1]), model, dynamo=False, dynamic=False, opset=17)
    packed(model, tmp_path / "set.npz", tmp_path / "bundle")
    forward = prepare(onnx.load(tmp_path / "bundle" / "model.fp32.onnx"))
    for make in PRECISIONS.values():
        check(make(forward, image), tmp_path)


@pytest.mark.parametrize(
    ("node", "kind", "left"),
    [
        ("y = Atanh (x)", np.float32, "Atanh of float"),
        ("y = Tanh (x)", np.float32, None),
        ("y = ConvTranspose <strides=[2,2], pads=[1,1,0,0]> (x, w)", np.float32, "ConvTranspose of float, float"),
        ("y = ConvTranspose <strides=[2,2], pads=[1,1,1,1]> (x, w)", np.float32, None),
        (
            'y = ConvTranspose <strides=[2,2], auto_pad="SAME_UPPER"> (x, w)',
            np.float32,
            "ConvTranspose of float, float",
        ),
        ("y = ArgMax <axis=1, select_last_index=1> (x)", np.float32, "ArgMax of float"),
        ("y = Shape (x)", np.float32, "Shape of float"),
        ("y = Round (x)", np.float64, None),
        ("y = Sign (x)", np.float16, None),
        ("y = Acos (x)", np.float16, "Acos of float16"),
    ],
)
def test_a_node_without_a_kernel_is_found(node: str, kind: Any, left: str | None) -> None:
    weights = {"w": np.ones((1, 1, 3, 3))} if "w" in node else {}
    model = classifier([node, "logits = Flatten (x)"], image=(1, 4, 4), classes=16, constants=weights, dtype=kind)
    model.graph.input[0].name = "x"
    assert left_to_the_cpu(model) == everywhere([left] if left else [])


@pytest.mark.parametrize(("opset", "left"), [(18, []), (19, ["Equal of float, float"])])
def test_a_kernel_that_ends_with_no_version_is_of_its_first_alone(opset: int, left: list[str]) -> None:
    """ONNX Runtime 1.26 has Equal from opset 13 on; opset 19 has an Equal of its own, which it leaves to the CPU."""
    nodes, image = ["y = Equal (input, input)", "logits = Flatten (input)"], (1, 1, 4)
    model = classifier(nodes, image=image, classes=4, opset=opset, dtype=np.float32)
    assert left_to_the_cpu(model) == {"1.26.0": left, "1.31.1": []}


def test_onnx_runtime_puts_no_int32_in_an_int8_graph_that_is_opened_for_a_gpu(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = to_bytes(in_int8(exported.forward, calibration((1, SIDE, SIDE))).model)

    def left() -> set[str]:
        found = left_to_the_cpu(optimised(graph, tmp_path / "optimised.onnx"))
        return {node.split(",")[0] for nodes in found.values() for node in nodes}

    assert left() == set()
    monkeypatch.setattr("tests.export.cuda.kernels.NOT_ON_GPU", [])
    assert left() == {"DequantizeLinear of int32"}, "this ONNX Runtime needs no such list any more"

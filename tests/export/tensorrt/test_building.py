"""TensorRT's real parser and builder, which run without a GPU, take every graph we export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.precision.candidate import Candidate
from export.precision.table import PRECISIONS
from export.tensorrt import build
from runtime.tensorrt.api import library_of
from tests.export.precision.test_precision import CALIBRATION
from tests.export.rules.cases import model_of
from tests.export.rules.operations import CASES
from tests.export.tensorrt.test_to_engine import key

if TYPE_CHECKING:
    from onnx import ModelProto

    from tests.export.classifiers import Exported

tensorrt_rtx = pytest.importorskip("tensorrt_rtx")


def parse(model: ModelProto) -> None:
    """Fails with the parser's own words."""
    builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    network = builder.create_network(0)
    parser = tensorrt_rtx.OnnxParser(network, builder.logger)
    parsed = parser.parse(to_bytes(model))
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]


NOT_IN_TENSORRT = {
    "MaxPool dilated",
    "Resize linearly",
    "Resize with empty scales",
    "QuantizeLinear",
    "QuantizeLinear by channel",
}
"""A dilated window at all; a size given in pixels beside a dynamic batch; a zero point that is not zero."""
THAT_ADD = {
    "GatherElements where TopK says",
    "GatherND in each channel, from the end too",
    "GatherND in each image",
    "GatherND of the image by its number",
    "GatherND, one of them twice",
    "GridSample",
    "GridSample at constant places",
    "GridSample at the border",
    "GridSample at the nearest",
    "GridSample cubic",
    "GridSample in a mirror",
    "ScatterElements",
    "ScatterElements that adds",
    "ScatterND",
    "ScatterND that adds",
    "TopK",
    "TopK of the smallest channels",
}
"""Gradients that add what falls on one place: TensorRT scatters without a reduction."""


@pytest.mark.parametrize("name", sorted(set(CASES) - NOT_IN_TENSORRT - THAT_ADD))
def test_gradient_of_every_operation_is_parsed(name: str) -> None:
    parse(gradient_graph(model_of(CASES[name], np.float32)))


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_classifier_and_gradient_graph_of_every_precision_are_parsed_and_built(
    precision: str, exported: Exported
) -> None:
    library, candidate = (
        library_of(tensorrt_rtx),
        PRECISIONS[precision].make(Candidate(exported.forward), CALIBRATION)[0],
    )
    for graph in (to_bytes(candidate.forward.model), to_bytes(candidate.gradient)):
        assert len(build(library, graph, key(graph)).engine) > 10_000

"""TensorRT's real parser and builder, which run without a GPU, take every graph we export."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from export.gradient import gradient_graph
from export.passes import to_bytes
from export.precision import PRECISIONS
from tests.export.test_precision import CALIBRATION
from tests.export.test_rules import CASES, model_of

if TYPE_CHECKING:
    from onnx import ModelProto

    from tests.export.classifiers import Exported

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)


def parse(model: ModelProto) -> tuple[Any, Any]:
    """Return builder and network; fails with the parser's own words."""
    import tensorrt_rtx

    builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    network = builder.create_network(0)
    parser = tensorrt_rtx.OnnxParser(network, builder.logger)
    parsed = parser.parse(to_bytes(model))
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    return builder, network


def build(model: ModelProto) -> Any:
    builder, network = parse(model)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        row = tuple(value.shape)[1:]
        profile.set_shape(value.name, (1, *row), (8, *row), (64, *row))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config)


NOT_IN_TENSORRT = {
    "MaxPool dilated",
    "Resize linearly",
    "Resize with empty scales",
    "QuantizeLinear",
    "QuantizeLinear by channel",
}
"""A dilated window at all; a size given in pixels beside a dynamic batch; a zero point that is not zero."""


@pytest.mark.parametrize("name", sorted(set(CASES) - NOT_IN_TENSORRT))
def test_gradient_of_every_operation_is_parsed(name: str) -> None:
    parse(gradient_graph(model_of(CASES[name], np.float32)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_classifier_and_gradient_graph_of_every_precision_are_parsed_and_built(
    precision: str, exported: Exported
) -> None:
    forward = PRECISIONS[precision].make(exported.forward, CALIBRATION)[0]
    assert build(forward) is not None
    assert build(gradient_graph(forward)) is not None

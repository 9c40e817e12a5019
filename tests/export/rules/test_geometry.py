"""The derivative of what has a geometry or a choice, held to torch over all that hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from export.gradient import gradient_graph
from tests.export.rules.cases import Case, gradient_of, model_of
from tests.export.rules.operations import CONSTANT_GRID, GRID, PLACES, SOMEWHERE, grid

TRANSPOSED = "ConvTranspose"


def attribute(node: Any, name: str) -> Any:
    return next(helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    begin=st.integers(0, 3),
    end=st.integers(0, 3),
    side=st.integers(3, 9),
    group=st.sampled_from([1, 2, 4]),
)
def test_convolution_of_any_geometry_is_differentiated_by_equal_padding(
    kernel: int, stride: int, dilation: int, begin: int, end: int, side: int, group: int
) -> None:
    assume(side + begin + end >= dilation * (kernel - 1) + 1)
    weight = np.random.default_rng(0).standard_normal((4, 4 // group, kernel, kernel))
    text = (
        f"y = Conv <strides=[{stride},{stride}], dilations=[{dilation},{dilation}], group={group}, "
        f"pads=[{begin},{begin},{end},{end}]> (x, w)"
    )

    def function(x: Any, w: Any) -> Any:
        return F.conv2d(F.pad(x, (begin, end, begin, end)), w, stride=stride, dilation=dilation, groups=group)

    case = Case(text, function, {"w": weight}, (4, side, side))
    ours, expected = gradient_of(case, np.float64)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11)
    transposed = [node for node in gradient_graph(model_of(case, np.float32)).graph.node if node.op_type == TRANSPOSED]
    for pads, added in ((attribute(node, "pads"), attribute(node, "output_padding")) for node in transposed):
        assert pads[:2] == pads[2:], "ONNX Runtime's CUDA provider takes no others"
        assert max(added) < stride, "nor does cuDNN"


TORCH_PADS = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(sorted(TORCH_PADS)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    sides=st.tuples(st.integers(4, 6), st.integers(4, 6)),
)
def test_padding_of_any_kind_and_width_is_differentiated(
    mode: str, pads: tuple[int, ...], sides: tuple[int, int]
) -> None:
    top, left, bottom, right = pads
    given_ = {"pads": np.asarray([0, 0, top, left, 0, 0, bottom, right])}

    def function(x: Any, *_: Any) -> Any:
        return F.pad(x, (left, right, top, bottom), TORCH_PADS[mode])

    ours, expected = gradient_of(Case(f'y = Pad <mode="{mode}"> (x, pads)', function, given_, (2, *sides)), np.float64)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11)


PADDINGS = st.sampled_from(["zeros", "border", "reflection"])
SIDES = st.tuples(st.integers(2, 6), st.integers(2, 6))


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["bilinear", "bicubic"]),
    padding=PADDINGS,
    aligned=st.booleans(),
    sides=SIDES,
    far=st.sampled_from([0.9, 1.3, 4.7]),
)
def test_sampling_of_any_size_is_differentiated_by_image_and_places(
    mode: str, padding: str, aligned: bool, sides: tuple[int, int], far: float
) -> None:
    nodes = (
        f'{GRID}\ny = GridSample <mode="{mode.removeprefix("bi")}", padding_mode="{padding}", '
        f"align_corners={int(aligned)}> (x, g)"
    )

    def function(x: Any, *_: Any) -> Any:
        return F.grid_sample(x, grid(x, far), mode=mode, padding_mode=padding, align_corners=aligned)

    ours, expected = gradient_of(Case(nodes, function, {**PLACES, "far": far}, (3, *sides)), np.float32)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


@settings(max_examples=25, deadline=None)
@given(padding=PADDINGS, aligned=st.booleans(), sides=SIDES, far=st.sampled_from([0.9, 1.3, 4.7]))
def test_sampling_of_the_nearest_pixel_is_differentiated_by_the_image(
    padding: str, aligned: bool, sides: tuple[int, int], far: float
) -> None:
    nodes = (
        f'{CONSTANT_GRID}\ny = GridSample <mode="nearest", padding_mode="{padding}", '
        f"align_corners={int(aligned)}> (x, g)"
    )

    def function(x: Any, one: Any, places: Any) -> Any:
        everywhere = places.expand(len(x), -1, -1, -1)
        return F.grid_sample(x, everywhere, mode="nearest", padding_mode=padding, align_corners=aligned)

    places = np.random.default_rng(0).uniform(-far, far, (1, 3, 5, 2))
    ours, expected = gradient_of(Case(nodes, function, {**SOMEWHERE, "places": places}, (3, *sides)), np.float32)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 4), axis=st.sampled_from([1, 2, -1]), largest=st.booleans(), ordered=st.booleans())
def test_the_largest_and_least_of_any_axis_are_differentiated(k: int, axis: int, largest: bool, ordered: bool) -> None:
    nodes = f"y, i = TopK <axis={axis}, largest={int(largest)}, sorted=1> (x, k)"
    if not ordered:  # which order an engine then takes is its own: their sum is of any
        nodes = f"v, i = TopK <axis={axis}, largest={int(largest)}, sorted=0> (x, k)\ny = ReduceSum (v, a)"

    def function(x: Any, *_: Any) -> Any:
        values = x.topk(k, axis, largest=largest).values
        return values if ordered else values.sum(axis, keepdim=True)

    given_ = {"k": np.asarray([k]), **({} if ordered else {"a": np.asarray([axis])})}
    ours, expected = gradient_of(Case(nodes, function, given_, (4, 5, 4)), np.float32)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))

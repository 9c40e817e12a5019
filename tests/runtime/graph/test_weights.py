"""How many numbers a graph keeps."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.errors import BadModel
from runtime.graph.weights import count_weights


def model(*tensors):
    graph = helper.make_graph([], "g", [], [], initializer=list(tensors))
    return helper.make_model(graph).SerializeToString()


def test_the_elements_of_all_initializers_are_counted_but_for_shapes():
    kernel = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "kernel")
    bias = numpy_helper.from_array(np.zeros(8, np.float16), "bias")
    scale = numpy_helper.from_array(np.array(0.5, np.float32), "scale")
    shape = numpy_helper.from_array(np.array([1, -1], np.int64), "shape")
    assert count_weights(model(kernel, bias, scale, shape)) == 8 * 27 + 8 + 1
    assert count_weights(model()) == 0


def test_dimensions_that_are_packed_are_read_too():
    """Proto3 writers pack repeated numbers; onnx itself does not."""
    tensor = bytes([0x0A, 3, 0xAC, 0x02, 2]) + bytes([0x10, TensorProto.FLOAT])  # dims [300, 2], packed
    graph = bytes([0x2A, len(tensor)]) + tensor
    data = bytes([0x3A, len(graph)]) + graph
    assert onnx.load_from_string(data).graph.initializer[0].dims == [300, 2]
    assert count_weights(data) == 600


def test_what_is_no_graph_is_refused():
    with pytest.raises(BadModel):
        count_weights(b"\xff\xff\xff")

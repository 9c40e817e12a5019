"""The step that masks a slope: exact in ONNX Runtime, and read by OpenVINO as it is written."""

import numpy as np
import onnx
import onnxruntime
import pytest

from export.gradient import gradient_graph
from export.graph.passes import prepare
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends.ort import OrtSession

NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[B, 3, 16, 16] input) => (float[B, 5] logits) {
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (input, c)
  r = Relu(a)
  d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, e)
  k = LeakyRelu(d)
  p = GlobalAveragePool(k)
  flat = Flatten(p)
  logits = Gemm(flat, w)
}
"""


@pytest.fixture
def net():
    random = np.random.default_rng(1)
    model = onnx.parser.parse_model(NET)
    arrays = {
        "c": random.normal(size=(8, 3, 3, 3)),
        "e": random.normal(size=(8, 8, 3, 3)),
        "w": random.normal(size=(8, 5)),
    }
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return model


def test_a_step_at_zero_is_exact_and_has_no_beta_of_zero(net):
    steps = [node for node in gradient_graph(prepare(net)).graph.node if node.op_type == "HardSigmoid"]
    assert steps
    y, above = np.array([-1, -1e-30, 0, 2.0**-60, 1e-3, 1], np.float32), [0, 0, 0, 1, 1, 1]
    for step in steps:
        kept = {attribute.name: attribute.f for attribute in step.attribute}
        assert kept["beta"] != 0
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("HardSigmoid", ["y"], ["s"], **kept)],
            "step",
            [onnx.helper.make_tensor_value_info("y", 1, [6])],
            [onnx.helper.make_tensor_value_info("s", 1, [6])],
        )
        model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 18)])
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"y": y})[0], above)


def test_openvinos_gradient_of_a_convolutional_network_is_that_of_onnx_runtime(net):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from runtime.openvino.session import OvSession

    graphs = net.SerializeToString(), gradient_graph(prepare(net)).SerializeToString()
    x = np.random.default_rng(2).random((4, 3, 16, 16)).astype(np.float32)
    loss = cross_entropy(one_hot(np.arange(4), 5).astype(np.float32))
    with OvSession(*graphs, precision="fp32") as ours, OrtSession(*graphs, precision="fp32") as theirs:
        its = theirs.loss_gradient(x, loss)[2]
        np.testing.assert_allclose(ours.loss_gradient(x, loss)[2], its, atol=1e-5 * np.abs(its).max())

"""A network that rounds as its int8 export does: the same ranges, the same answers, and a gradient that goes on."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from export.precision.calibrate import Calibration, in_int8
from pipeline.models.layers import Folded
from pipeline.models.quantised import LEVELS, Quantised, Rounded, rounded
from runtime.bundle.manifest import InputShape
from runtime.errors import BadRecipe
from runtime.images.image_set import ImageSet


def images(count=64):
    draw = np.random.default_rng(0)
    return ImageSet("noise", draw.integers(0, 256, (count, 1, 8, 8), np.uint8), np.arange(count) % 10, np.arange(count))


def as_tensor(chosen):
    return torch.from_numpy(chosen.as_float(slice(None)))


def calibrated(network, x):
    quantised = Quantised(network)
    quantised.calibrate(x.split(32))
    return quantised


def literally(model, x):
    """Run the Q/DQ graph as it is written: the optimiser would compute some layers otherwise."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x.numpy()})[0]


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_the_network_rounds_what_its_int8_export_rounds(arch, trained_like_of):
    network = trained_like_of(arch)
    x = as_tensor(images())
    model = in_int8(to_onnx(network, InputShape(channels=1, height=8, width=8)), Calibration(images())).model
    quantised = calibrated(network, x)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales = [stored[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    own = [float(largest) / LEVELS for largest in quantised.ranges.values()]
    np.testing.assert_allclose(sorted(own), sorted(map(float, scales)), rtol=1e-4)
    with torch.no_grad():
        answered, single = quantised(x).numpy(), Folded(network)(x).numpy()
    exported = literally(model, x)
    # Values at the middle of two levels fall to either side by the last bit, and layers behind them carry it on.
    assert np.abs(answered - exported).mean() < 0.3 * np.abs(single - exported).mean()


def test_the_weights_of_a_layer_are_the_integers_of_the_export(trained_like_of):
    network = trained_like_of("resnet18")
    model = in_int8(to_onnx(network, InputShape(channels=1, height=8, width=8)), Calibration(images())).model
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantised = calibrated(network, as_tensor(images()))
    layers = {name: part for name, part in quantised.traced.named_modules() if isinstance(part, Rounded)}
    for name, layer in layers.items():
        shape = (-1, *[1] * (layer.layer.weight.ndim - 1))
        weights = layer.weights()[0].detach().numpy() / stored[f"{name}.weight_scale"].reshape(shape)
        np.testing.assert_allclose(weights, stored[f"{name}.weight_quantized"], atol=1e-2)
    assert len(layers) > 10


def test_the_gradient_of_rounding_is_that_of_clipping():
    x = torch.tensor([-2.0, -0.4, 0.26, 1.0, 3.0], requires_grad=True)
    value = rounded(x, torch.tensor(1.5 / LEVELS))
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert slope.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert value.detach().div(1.5 / LEVELS).tolist() == pytest.approx([-127, -34, 22, 85, 127], abs=1e-4)


def test_what_trains_the_rounded_network_trains_the_network(trained_like_of):
    network = trained_like_of("mobilenet_v2")
    quantised = calibrated(network, as_tensor(images()))
    assert {id(weight) for weight in quantised.parameters()} == {id(weight) for weight in network.parameters()}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    quantised(as_tensor(images())).square().sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.01).step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, _ in network.named_parameters()}  # and no running statistics


def test_a_value_of_zeros_alone_stays_zero():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    quantised = calibrated(network, torch.zeros(2, 1, 2, 2))
    assert torch.equal(quantised(torch.zeros(2, 1, 2, 2)), torch.zeros(2, 2))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x.flatten(1)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("network", "says"), [(Branching(), "cannot be followed"), (nn.Sequential(nn.Flatten()), "no convolution")]
)
def test_a_network_that_cannot_be_rounded_is_refused(network, says):
    with pytest.raises(BadRecipe, match=says):
        Quantised(network)

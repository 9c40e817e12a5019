import pytest
import torch
from torch import nn

from pipeline.models import build_network
from pipeline.models.layers import Folded


@pytest.mark.parametrize(("arch", "parameters"), [("resnet18", 11_173_962), ("mobilenet_v2", 2_296_922)])
def test_full_width_networks_have_the_published_number_of_parameters(arch, parameters):
    network = build_network(arch, channels=3, classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize(
    ("channels", "size", "classes", "width"), [(1, 28, 10, 0.25), (3, 32, 7, 0.5), (4, 17, 2, 0.1)]
)
def test_networks_take_any_channels_size_classes_and_width(arch, channels, size, classes, width):
    network = build_network(arch, channels=channels, classes=classes, width=width)
    assert network(torch.rand(2, channels, size, size)).shape == (2, classes)


def test_normalisation_is_inside_the_network():
    plain = build_network("resnet18", channels=1, classes=10, width=0.125).eval()
    normalised = build_network("resnet18", channels=1, classes=10, width=0.125, mean=[0.3], std=[0.4]).eval()
    normalised.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(normalised(x), plain((x - 0.3) / 0.4))


def test_folded_network_equals_the_unfolded_one_in_logits_and_input_gradient(trained_like):
    x = torch.rand(4, 1, 28, 28)
    results = []
    for network in (trained_like, Folded(trained_like)):
        points = x.clone().requires_grad_()
        logits = network(points)
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), points)
        results.append((logits, gradient))
    (logits, gradient), (folded_logits, folded_gradient) = results
    torch.testing.assert_close(folded_logits, logits, rtol=1e-4, atol=1e-5)
    error = (folded_gradient - gradient).flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)
    assert error.median() < 1e-4


def test_folded_copy_follows_the_network_only_after_refresh(trained_like):
    folded, x = Folded(trained_like), torch.rand(4, 1, 28, 28)
    before = folded(x)
    with torch.no_grad():
        for parameter in trained_like.parameters():
            parameter.mul_(1.1)
    torch.testing.assert_close(folded(x), before)
    torch.testing.assert_close(folded.refresh()(x), trained_like(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(folded(x), before)


def test_folded_copy_has_no_batch_norm_and_needs_no_weight_gradient(trained_like):
    folded = Folded(trained_like)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert any(parameter.requires_grad for parameter in trained_like.parameters())

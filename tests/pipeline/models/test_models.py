import copy
import gc
import weakref

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from pipeline.models import Blueprint, build_network
from pipeline.models.layers import Affine, Convolution, Folded, frozen, keep_in


@pytest.mark.parametrize(("arch", "parameters"), [("resnet18", 11_173_962), ("mobilenet_v2", 2_296_922)])
def test_full_width_networks_have_the_published_number_of_parameters(arch, parameters):
    network = build_network(arch, channels=3, classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("width", "parameters"), [(10, 46_160_474), (20, 184_531_674)])
def test_the_published_wide_networks_have_the_published_number_of_parameters(width, parameters):
    with torch.device("meta"):
        network = build_network("wideresnet", channels=3, classes=10, width=width, depth=34)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_deepminds_network_has_the_published_number_of_parameters():
    """Of the teacher Bartoldson2024Adversarial_WRN-94-16."""
    with torch.device("meta"):
        network = build_network("dm_wideresnet", channels=3, classes=10, width=16, depth=94)
    assert sum(parameter.numel() for parameter in network.parameters()) == 365_915_610


def test_a_wide_network_has_the_published_key_names():
    names = build_network("wideresnet", channels=3, classes=10, width=2, depth=16).state_dict()
    weights = {name for name in names if name.endswith("weight")}
    blocks = {
        f"block{group}.layer.{index}.{part}.weight"
        for group in (1, 2, 3)
        for index in (0, 1)
        for part in ("bn1", "conv1", "bn2", "conv2", "convShortcut")
        if part != "convShortcut" or index == 0
    }
    assert weights == blocks | {"conv1.weight", "bn1.weight", "fc.weight"}


def test_a_wide_network_is_pre_activation_and_its_widening_block_shows_the_active_input_to_both_ways():
    network = build_network("wideresnet", channels=3, classes=10, width=2, depth=16).eval()
    first, second = network.block1.layer
    x = torch.randn(2, 16, 8, 8)
    active = first.bn1(x).relu()
    expected = first.convShortcut(active) + first.conv2(first.bn2(first.conv1(active)).relu())
    torch.testing.assert_close(first(x), expected)
    branch = second.conv2(second.bn2(second.conv1(second.bn1(expected).relu())).relu())
    torch.testing.assert_close(second(expected), expected + branch)


@pytest.mark.parametrize(("width", "affine"), [(1.0, 4), (1.5, 3)])
def test_what_a_convolution_can_take_up_is_folded_and_the_rest_is_affine(width, affine):
    """The three bn2 are folded, and the first bn1 where the stem is read by nothing else: where the block widens."""
    folded = Folded(build_network("wideresnet", channels=1, classes=4, width=width, depth=10))
    assert sum(isinstance(module, Affine) for module in folded.modules()) == affine


@pytest.mark.parametrize(
    ("blueprint", "says"),
    [
        ({"arch": "resnet18", "depth": 18}, "one depth only"),
        ({"arch": "wideresnet", "depth": 35}, "10, 16, 22"),
        ({"arch": "vgg"}, "resnet18"),
    ],
)
def test_a_network_that_there_is_not_is_refused(blueprint, says):
    with pytest.raises(ValidationError, match=says):
        Blueprint(**blueprint)


def test_a_depth_is_the_usual_one_where_nobody_names_one():
    assert Blueprint(arch="wideresnet").depth == 34
    assert Blueprint(arch="wideresnet", depth=28).depth == 28
    assert Blueprint(arch="resnet18").depth is None


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "wideresnet", "dm_wideresnet"])
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


def test_a_frozen_network_answers_as_the_folded_copy_does_and_does_not_keep_the_network(trained_like):
    network = copy.deepcopy(trained_like)
    alive, kept = weakref.ref(network), frozen(network)
    del network
    gc.collect()
    assert alive() is None
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(kept(x), Folded(trained_like)(x))


@pytest.mark.parametrize(("groups", "stride", "single"), [(8, 2, True), (8, 1, False), (1, 2, False)])
def test_a_strided_depthwise_convolution_is_in_single_precision_between_bf16(groups, stride, single):
    torch.manual_seed(0)
    conv = Convolution(8, 8, 3, stride, 1, groups=groups, bias=False)
    x = torch.rand(2, 8, 8, 8).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    (gradient,) = torch.autograd.grad(y.float().sum(), x)
    assert (y.dtype, gradient.dtype) == (torch.bfloat16, torch.bfloat16)
    exact = functional.conv2d(x.float(), conv.weight, stride=stride, padding=1, groups=groups)
    assert torch.equal(y, exact.bfloat16()) == single  # bf16 would have rounded the weights
    torch.testing.assert_close(y.float(), exact, atol=0.02, rtol=0.02)
    assert torch.equal(conv(x.float()), exact)


def answer_and_gradient(network, x, **autocast):
    points = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, **autocast):
        logits = network(points)
        (gradient,) = torch.autograd.grad((logits.float() ** 2).sum(), points)
    return logits, gradient


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_a_copy_that_is_kept_in_bf16_answers_as_autocast_does_bit_for_bit(arch):
    torch.manual_seed(0)
    network, x = build_network(arch, channels=3, classes=5, width=0.125), torch.rand(4, 3, 16, 16)
    network(x)  # running statistics of their own
    cast, kept = Folded(network), Folded(network, torch.bfloat16)
    for found, expected in zip(answer_and_gradient(kept, x, enabled=False), answer_and_gradient(cast, x), strict=True):
        assert torch.equal(found, expected)
    assert found.dtype == torch.float32


def test_a_wide_network_that_is_kept_in_bf16_answers_as_autocast_does_up_to_the_rounding_before_its_head():
    torch.manual_seed(0)
    network, x = build_network("wideresnet", channels=3, classes=5, width=1, depth=10), torch.rand(8, 3, 16, 16)
    network(x)
    cast, kept = Folded(network), Folded(network, torch.bfloat16)
    (logits, gradient), (expected, its) = answer_and_gradient(kept, x, enabled=False), answer_and_gradient(cast, x)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)
    assert nn.functional.cosine_similarity(gradient.flatten(1), its.flatten(1)).min() > 0.999


def test_a_copy_that_is_kept_in_bf16_follows_the_network_and_normalises_in_single_precision(trained_like):
    kept, x = Folded(trained_like, torch.bfloat16), torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        for parameter in trained_like.parameters():
            parameter.mul_(1.1)
    before = kept(x)
    assert torch.equal(kept.refresh()(x), Folded(trained_like, torch.bfloat16)(x))
    assert not torch.equal(kept(x), before)
    for module in kept.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            slow = isinstance(module, Convolution) and module.slow_in_bf16
            assert module.weight.dtype == (torch.float32 if slow else torch.bfloat16)
    assert {buffer.dtype for buffer in kept.copy.normalize.buffers()} == {torch.float32}


def test_a_scale_that_answers_alike_computes_in_single_precision_and_rounds_once():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8).eval()
    norm.running_mean.uniform_(5, 9)
    norm.running_var.uniform_(1, 2)
    affine = Affine(norm).requires_grad_(False)
    affine.take(norm)
    x = (7 + torch.randn(4, 8, 3, 3)).bfloat16().requires_grad_()
    exact = affine(x.detach().float())
    (slope,) = torch.autograd.grad(affine(x).sum(), x)
    keep_in(affine, torch.bfloat16)
    answer = affine(x)
    assert torch.equal(answer, exact.bfloat16())
    assert torch.equal(torch.autograd.grad(answer.float().sum(), x)[0], slope)


def test_folding_keeps_the_kind_of_a_convolution():
    network = build_network("mobilenet_v2", channels=3, classes=4, width=0.25)
    folded = Folded(network)
    kinds = {type(module) for module in folded.modules() if isinstance(module, nn.Conv2d)}
    assert kinds == {Convolution}

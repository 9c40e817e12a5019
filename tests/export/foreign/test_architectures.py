"""Well-known architectures, small and with weights like trained ones, from a file to a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn

from export.precision.table import PRECISIONS
from tests.export.classifiers import torch_gradient
from tests.export.strangers import export, gradient_of, packed, pictures, prepared, session_of
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLASSES, N = 5, 8
GUIDE = ROOT / "docs" / "your-own-model.md"


@dataclass(frozen=True)
class Architecture:
    """One family, and an instance small enough for a test."""

    build: Callable[[], nn.Module]
    family: str
    source: str
    side: int = 32
    fast: bool = False


def vision(name: str, **changes: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(tv, name)(num_classes=CLASSES, **changes)


def of_timm(name: str, **changes: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=CLASSES, **changes)


def small_convnext() -> nn.Module:
    block = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([block(16, 32, 1), block(32, None, 1)], num_classes=CLASSES)


def small_densenet() -> nn.Module:
    return tv.DenseNet(8, (1, 2, 2), 16, num_classes=CLASSES)


def small_vgg() -> nn.Module:
    features = tv.vgg.make_layers([8, "M", 16, 16, "M", 32, 32, "M"], batch_norm=True)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(32 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def small_vit() -> nn.Module:
    return tv.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=CLASSES)


def small_mixer() -> nn.Module:
    return timm.models.MlpMixer(num_classes=CLASSES, img_size=32, patch_size=8, num_blocks=2, embed_dim=48)


def small_swin() -> nn.Module:
    return tv.SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4], num_classes=CLASSES)


SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48}

ARCHITECTURES = {
    "ResNet-18": Architecture(vision("resnet18"), "residual", "torchvision"),
    "VGG with batch normalisation": Architecture(small_vgg, "plain convolutions", "torchvision"),
    "SqueezeNet 1.1": Architecture(vision("squeezenet1_1"), "fire modules", "torchvision", side=64),
    "DenseNet": Architecture(small_densenet, "dense concatenation", "torchvision", fast=True),
    "GoogLeNet": Architecture(vision("googlenet", aux_logits=False, init_weights=False), "inception", "torchvision"),
    "MobileNetV2": Architecture(vision("mobilenet_v2", width_mult=0.25), "inverted residual", "torchvision"),
    "MobileNetV3 small": Architecture(vision("mobilenet_v3_small"), "hard swish and gates", "torchvision"),
    "EfficientNet-B0": Architecture(vision("efficientnet_b0"), "SiLU and gates", "torchvision"),
    "MNASNet": Architecture(vision("mnasnet0_5"), "searched", "torchvision"),
    "ShuffleNetV2": Architecture(vision("shufflenet_v2_x0_5"), "channel shuffle", "torchvision", fast=True),
    "RegNetY-400MF": Architecture(vision("regnet_y_400mf"), "grouped residual", "torchvision"),
    "ConvNeXt": Architecture(small_convnext, "layer normalisation and GELU", "torchvision", fast=True),
    "ViT": Architecture(small_vit, "attention", "torchvision", fast=True),
    "Swin": Architecture(small_swin, "shifted windows", "torchvision"),
    "DeiT, distilled": Architecture(of_timm("deit_tiny_distilled_patch16_224", depth=2, **SMALL), "attention", "timm"),
    "MLP-Mixer": Architecture(small_mixer, "perceptrons alone", "timm", fast=True),
    "ResMLP": Architecture(of_timm("resmlp_12_224", img_size=32), "perceptrons alone", "timm"),
    "CaiT": Architecture(of_timm("cait_xxs24_224", depth=2, num_heads=2, **SMALL), "class attention", "timm"),
    "BEiT": Architecture(of_timm("beit_base_patch16_224", depth=2, num_heads=2, **SMALL), "attention", "timm"),
    "GhostNet": Architecture(of_timm("ghostnet_050"), "cheap features", "timm"),
    "LeViT": Architecture(of_timm("levit_128s", img_size=64), "attention and convolutions", "timm", side=64),
    "MobileViT": Architecture(of_timm("mobilevit_xxs"), "attention and convolutions", "timm", side=64),
    "EdgeNeXt": Architecture(of_timm("edgenext_xx_small"), "attention over channels", "timm", side=64),
    "PoolFormer": Architecture(of_timm("poolformer_s12"), "pooling as attention", "timm"),
    "RepVGG": Architecture(of_timm("repvgg_a0"), "parallel branches", "timm"),
    "ReXNet": Architecture(of_timm("rexnet_100"), "inverted residual", "timm"),
}

BY_SPEED = [
    pytest.param(name, marks=() if architecture.fast else pytest.mark.slow)
    for name, architecture in ARCHITECTURES.items()
]


def network_of(name: str) -> nn.Module:
    architecture = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return prepared(architecture.build(), (3, architecture.side, architecture.side))


def check(name: str, place: Path, **how: Any) -> None:
    """Export, pack, and compare logits and gradients with PyTorch's, image by image."""
    network, side = network_of(name), ARCHITECTURES[name].side
    random = np.random.default_rng(0)
    x = pictures(N, (3, side, side))
    with torch.no_grad():
        z = network(torch.from_numpy(x)).numpy()
    np.savez(place / "set.npz", x=x, y=z.argmax(axis=1))
    export(network, torch.from_numpy(x[: 2 if how["dynamic"] else 1]), place / "model.onnx", **how)
    session = session_of(packed(place / "model.onnx", place / "set.npz", place / "bundle"))
    assert z.std(axis=0).mean() > 1e-3, "a degenerate network proves nothing"
    np.testing.assert_allclose(session.logits(x), z, rtol=0, atol=1e-3 * np.abs(z).max())
    cotangent = random.standard_normal(z.shape).astype(np.float32)
    found, expected = gradient_of(session, x, cotangent), torch_gradient(network, x, cotangent)
    errors = np.abs(found - expected).max((1, 2, 3)) / np.abs(expected).max((1, 2, 3))
    assert np.median(errors) < PRECISIONS["fp32"].limits.gradient, errors
    order = random.permutation(N)
    np.testing.assert_array_equal(gradient_of(session, x[order], cotangent[order]), found[order])


@pytest.mark.parametrize("name", BY_SPEED)
def test_architecture_of_a_fixed_batch_is_packed_and_differentiated_as_by_torch(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, dynamo=False, dynamic=False, opset=17)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT", "Swin", "MobileNetV3 small", "ShuffleNetV2", "LeViT"])
def test_architecture_of_a_dynamic_batch_is_packed_and_differentiated_as_by_torch(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, dynamo=False, dynamic=True, opset=17)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("name", ["ViT", "Swin", "ConvNeXt", "DenseNet", "MobileNetV3 small", "ShuffleNetV2"])
def test_architecture_from_the_newer_exporter_is_packed(name: str, dynamic: bool, tmp_path: Path) -> None:
    check(name, tmp_path, dynamo=True, dynamic=dynamic, opset=20)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [9, 11, 13])
@pytest.mark.parametrize("name", ["ResNet-18", "MobileNetV2", "ShuffleNetV2"])
def test_architecture_of_an_old_opset_is_packed(name: str, opset: int, tmp_path: Path) -> None:
    check(name, tmp_path, dynamo=False, dynamic=False, opset=opset)


@pytest.mark.slow
def test_a_vision_transformer_is_packed_in_fp16_and_that_again(tmp_path: Path) -> None:
    network, side = network_of("ViT"), ARCHITECTURES["ViT"].side
    x = pictures(N, (3, side, side))
    with torch.no_grad():
        z = network(torch.from_numpy(x)).numpy()
    np.savez(tmp_path / "set.npz", x=x, y=z.argmax(axis=1))
    export(network, torch.from_numpy(x[:2]), tmp_path / "model.onnx", dynamo=False, dynamic=True, opset=17)
    session = session_of(
        packed(tmp_path / "model.onnx", tmp_path / "set.npz", tmp_path / "bundle", "--precision", "fp16")
    )
    np.testing.assert_allclose(session.logits(x), z, rtol=0, atol=0.05 * np.abs(z).max())
    packed(tmp_path / "bundle" / "model.fp16.onnx", tmp_path / "set.npz", tmp_path / "again")


def test_the_guide_lists_exactly_the_architectures_that_are_tested() -> None:
    sources = {each.source for each in ARCHITECTURES.values()}
    rows = [
        line for line in GUIDE.read_text().splitlines() if line.split(" | ")[1:2] and line.split(" | ")[1] in sources
    ]
    assert rows == [f"| {name} | {a.source} | {a.family} |" for name, a in ARCHITECTURES.items()]

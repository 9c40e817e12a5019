"""What parts attack: a ResNet-18 with random weights, images that it classifies, an eps at which half of them survive.

Nothing has to be trained or carried, and every attack finds images that break at once, late and never, as those of a
robust network do. Its robust accuracy says nothing.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from export.bundle.write import Claims, Precision, write_bundle
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from export.precision.calibrate import Calibration
from export.precision.candidate import Candidate
from export.precision.table import PRECISIONS
from pipeline.models import build_network
from pipeline.runs.evaluate import holdout_accuracy
from runtime.bundle.manifest import InputShape
from runtime.images.image_set import ImageSet
from runtime.spec import ThreatModel

CLASSES, CHANNELS = 10, 3
LOW, HIGH, HALVINGS = 1e-6, 0.1, 8
"""Between these an eps is looked for, by halving their ratio."""


@dataclass(frozen=True)
class Size:
    """How large a part is: width of the network, side of the images, their number, and of those that set eps."""

    width: float
    side: int
    images: int
    sample: int


FULL, TINY = Size(1.0, 32, 1000, 128), Size(0.125, 8, 12, 12)


def network(size: Size, device: torch.device) -> nn.Module:
    """Return the network in eval mode, with the statistics of noise, and its logits centred: every class comes up."""
    torch.manual_seed(0)
    made = build_network("resnet18", channels=CHANNELS, classes=CLASSES, width=size.width).to(device)
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    x = torch.from_numpy(noise(size, 256)).to(device) / 255.0
    for norm in norms:
        norm.momentum = None  # the mean over all batches: of this one alone
    with torch.no_grad():
        made.train()(x)
        head = made.eval().get_submodule("head")
        assert isinstance(head, nn.Linear)
        head.bias -= made(x).mean(dim=0)
    for norm in norms:
        norm.momentum = 0.1
    return made.requires_grad_(False)


def noise(size: Size, n: int, seed: int = 0) -> np.ndarray:
    """Return n images of noise, uint8 [n, C, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (n, CHANNELS, size.side, size.side), dtype=np.uint8)


def images_of(made: nn.Module, size: Size, n: int, device: torch.device) -> ImageSet:
    """Return n images whose labels are the network's own answers."""
    pixels, labels = noise(size, n), []
    with torch.no_grad():
        for part in np.array_split(pixels, max(1, n // 100)):
            labels.append(made(torch.from_numpy(part).to(device) / 255.0).argmax(dim=1).cpu().numpy())
    return ImageSet("noise", pixels, np.concatenate(labels), np.arange(n))


def half_stand(made: nn.Module, images: ImageSet, device: torch.device) -> float:
    """Return an eps at which about half of the images survive PGD-10."""
    low, high = LOW, HIGH
    for _ in range(HALVINGS):
        eps = math.sqrt(low * high)
        stands = holdout_accuracy(made, images, classes=CLASSES, eps=eps, device=device)[1]
        low, high = (eps, high) if stands > 0.5 else (low, eps)
    return math.sqrt(low * high)


def bundle(made: nn.Module, images: ImageSet, size: Size, names: tuple[str, ...], eps: float, out: Path) -> None:
    """Export the network, on the CPU, in the precisions named, as `export` does but for its checks."""
    forward = to_onnx(made.cpu(), InputShape(channels=CHANNELS, height=size.side, width=size.side))
    calibration = Calibration(ImageSet("other noise", noise(size, 64, seed=1), np.zeros(64, np.int64), np.arange(64)))
    precisions = {}
    for name in names:
        candidate = PRECISIONS[name].make(Candidate(forward), calibration)[0]
        precisions[name] = Precision(candidate.forward.model, candidate.gradient)
    session = onnxruntime.InferenceSession(to_bytes(forward.model), providers=["CPUExecutionProvider"])
    parts = np.array_split(images.images, max(1, len(images) // 64))
    logits = np.concatenate([session.run(["logits"], {"input": np.float32(part) / 255})[0] for part in parts])
    write_bundle(
        out,
        precisions=precisions,
        evaluation=images,
        reference_logits=logits,
        claims=Claims(name="noise", classes=tuple(map(str, range(CLASSES))), threat_model=ThreatModel(eps=eps)),
    )

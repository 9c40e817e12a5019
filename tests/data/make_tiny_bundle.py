"""Make the stored bundle of the bare-environment test: a small convolutional network, forty images.

    python tests/data/make_tiny_bundle.py

It is stored because the environment that verifies it can neither train nor export.
"""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from export.bundle.write import Claims
from export.network.export_network import export_network
from pipeline.data.sets import fashion_mini
from runtime.bundle.manifest import InputShape
from runtime.spec import Gate, ThreatModel

BUNDLE = Path(__file__).parent / "tiny-bundle"
IMAGES = 40


def main() -> None:
    """Train on clean images for some seconds and export."""
    torch.manual_seed(0)
    dataset = fashion_mini.load(BUNDLE)
    network = nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(392, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    images, labels = torch.from_numpy(dataset.train.images).float() / 255, torch.from_numpy(dataset.train.labels)
    for _ in range(3):
        for rows in torch.randperm(len(labels)).view(-1, 100):
            optimiser.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimiser.step()
    every_tenth = dataset.test.rows(slice(0, 2000, 2000 // IMAGES))
    claims = Claims(
        name="tiny",
        classes=dataset.classes,
        threat_model=ThreatModel(eps=8 / 255),
        gate=Gate(fail_under=0.2),
        created="2026-01-01T00:00:00+00:00",
    )
    shutil.rmtree(BUNDLE, ignore_errors=True)
    shape = InputShape(channels=1, height=28, width=28)
    export_network(network, shape=shape, evaluation=every_tenth, claims=claims, out=BUNDLE)


if __name__ == "__main__":
    main()

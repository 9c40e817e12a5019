"""A staircase in a trained network hides nothing: its surrogate leads an attack as torch's straight-through does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from export.rules import RULES
from pipeline.data.sets import fashion_mini
from runtime.attacks import PGD
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import InputShape
from runtime.images import DATA_ROOT
from runtime.records.report import load_report
from runtime.suite.campaign import Campaign
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.command_line import edgeproof

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.images.image_set import ImageSet

EPS = 8 / 255
STEPS = 3


class Stepped(nn.Module):
    """Activations of few levels, as PACT has them, and round each a faint way that leads elsewhere.

    It keeps a gradient from being zero, so that no check sees that it is blind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 5, 2, 2)
        self.second = nn.Conv2d(12, 24, 3, 2, 1)
        self.head = nn.Linear(24 * 7 * 7, 10)

    def forward(self, x: Any) -> Any:
        for layer in (self.first, self.second):
            smooth = layer(x)
            clipped = smooth.clamp(0, 1)
            levels = (clipped * STEPS).round() / STEPS
            if self.training:
                levels = clipped + (levels - clipped).detach()
            x = levels + 0.01 * smooth.flip(1)
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return fashion_mini.load(DATA_ROOT).test.rows(slice(0, 128))


@pytest.fixture(scope="module")
def trained() -> Stepped:
    training = fashion_mini.load(DATA_ROOT).train
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Stepped()
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for step in range(200):
            rows = slice(64 * (step % 40), 64 * (step % 40) + 64)
            x, y = torch.from_numpy(training.as_float(rows)), torch.from_numpy(training.labels[rows])
            loss = nn.functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def model(trained: Stepped) -> Any:
    return to_onnx(trained, InputShape(channels=1, height=28, width=28))


def standing(model: Any, images: ImageSet) -> float:
    session = OrtSession(to_bytes(model.model), to_bytes(gradient_graph(model)), precision="fp32")
    target = Target(session, images, 10, 64, np.asarray)
    evidence = clean_pass(target, 0, Silent())
    return Campaign(target, evidence, EPS, 0, Silent()).attack(PGD, 0).accuracy


def standing_in_torch(network: Stepped, images: ImageSet) -> float:
    """Return the accuracy under PGD of ten steps by torch's straight-through gradient, judged by the steps."""
    x, y = torch.from_numpy(images.as_float(slice(None))), torch.from_numpy(images.labels)
    start = x + EPS * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1)
    points, stands = start.clamp(0, 1), torch.ones(len(y), dtype=torch.bool)
    for _ in range(10):
        points.requires_grad_(True)
        network.train()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(points), y, reduction="sum"), points)
        network.eval()
        moved = points.detach() + EPS / 4 * gradient.sign()
        points = torch.max(torch.min(moved, x + EPS), x - EPS).clamp(0, 1).detach()
        with torch.no_grad():
            stands &= network(points).argmax(1) == y
    return float(stands.float().mean())


def test_an_attack_through_a_rounding_is_as_strong_as_torchs_and_a_flat_one_is_not(
    trained: Stepped, model: Any, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {node.op_type for node in model.model.graph.node} >= {"Round", "Clip"}
    ours, expected = standing(model, images), standing_in_torch(trained, images)
    assert abs(ours - expected) < 0.08
    monkeypatch.setitem(RULES, "Round", lambda emit, node, dy: {0: emit("Mul", dy, emit.real(0))})
    assert standing(model, images) > ours + 0.08


def test_a_rounding_with_a_way_round_it_must_stand_a_blind_search_too(
    model: Any, images: ImageSet, tmp_path: Path
) -> None:
    onnx.save(model.model, tmp_path / "model.onnx")
    np.savez(tmp_path / "set.npz", x=images.images[:24], y=images.labels[:24])
    options = ("--data", tmp_path / "set.npz", "--eps", EPS, "--attacks", "pgd")
    result = edgeproof("verify", tmp_path / "model.onnx", *options, "--out", tmp_path / "run")
    assert "the gradient is a surrogate: it passes straight through Round" in result.stdout, result.output
    report = load_report(tmp_path / "run")
    pgd, square = report.attacks
    assert ((pgd.name, pgd.gradient), (square.name, square.gradient)) == (("pgd", "own"), ("square", "none"))
    assert report.robust_accuracy is not None
    assert report.robust_accuracy.value <= square.accuracy < pgd.accuracy

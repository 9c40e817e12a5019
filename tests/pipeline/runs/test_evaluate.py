"""The hold-out, and the PyTorch session that attacks run on."""

from functools import partial

import numpy as np
import pytest
import torch

from pipeline.models.layers import Folded
from pipeline.runs.evaluate import TorchSession, attacked, holdout_accuracy, teacher_entropy
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.errors import MissingEnvironment
from runtime.images.image_set import ImageSet


def test_hold_out_accuracy_counts_what_the_network_gets_right_and_keeps():
    class Brightness(torch.nn.Module):
        def forward(self, x):
            level = x.mean(dim=(1, 2, 3))
            return torch.stack([0.5 - level, level - 0.5], dim=1)

    pixels = np.repeat(np.array([0, 120, 140, 255], np.uint8), 4).reshape(4, 1, 2, 2)
    images = ImageSet("levels", pixels, np.array([0, 0, 1, 0]), np.arange(4))
    clean, pgd = holdout_accuracy(Brightness(), images, classes=2, eps=0.1, device=torch.device("cpu"))
    assert (clean, pgd) == (0.75, 0.25)


class Bright(torch.nn.Module):
    """Brighter or darker than the middle, so surely."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        level = self.scale * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-level, level], dim=1)


def test_the_teachers_entropy_is_asked_where_the_student_errs_and_nowhere_else():
    """Wrong before any attack: at the image; broken by it: at the point found; else not at all."""
    pixels = np.repeat(np.array([255, 120, 0, 0, 255], np.uint8), 4).reshape(5, 1, 2, 2)
    images = ImageSet("levels", pixels, np.array([0, 0, 0, 0, 1]), np.arange(5))
    device = torch.device("cpu")
    evidence = attacked(Bright(), images, classes=2, eps=0.1, device=device, keep=True)
    assert evidence.robust.tolist() == [False, False, True, True, True]
    points = evidence.adversarial[:2].astype(np.float64)
    assert (points[0] == 1).all()
    assert abs(points[1] - 120 / 255).max() > 0.02
    level = 3.0 * (points.mean(axis=(1, 2, 3)) - 0.5)
    p = 1 / (1 + np.exp(-2 * level))
    expected = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()
    assert teacher_entropy(Bright(3.0), evidence, device) == pytest.approx(expected, rel=1e-5)
    right = ImageSet("dark", pixels[2:4], np.array([0, 0]), np.arange(2))
    assert (
        teacher_entropy(Bright(), attacked(Bright(), right, classes=2, eps=0.1, device=device, keep=True), device)
        is None
    )


class Roomy(torch.nn.Module):
    """Brighter or darker than the middle, for at most so many images at a time."""

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        level = x.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - level, level - 0.5], dim=1)


def test_a_hold_out_that_does_not_fit_the_memory_is_halved_to_equal_figures():
    pixels = np.random.default_rng(0).integers(100, 156, (300, 1, 2, 2)).astype(np.uint8)
    images = ImageSet("levels", pixels, (pixels.mean((1, 2, 3)) > 120).astype(np.int64), np.arange(300))
    measure = partial(holdout_accuracy, images=images, classes=2, eps=0.02, device=torch.device("cpu"))
    roomy, narrow = Roomy(300), Roomy(70)
    assert measure(narrow) == measure(roomy)
    assert (max(roomy.seen), narrow.seen[0]) == (250, 250)
    assert narrow.seen[-1] <= 62
    with pytest.raises(MissingEnvironment, match="memory") as caught:
        measure(Roomy(0))
    assert caught.value.hint


def test_the_torch_session_gives_the_gradient_of_autograd_and_of_the_folded_network(trained_like):
    x, labels = torch.rand(5, 1, 28, 28), torch.arange(5)
    points = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(trained_like(points), labels, reduction="sum"), points
    )
    for network in (trained_like, Folded(trained_like)):
        session = TorchSession(network, sha256="", device=torch.device("cpu"))
        logits, value, gradient = session.loss_gradient(x, cross_entropy(one_hot(labels, 10)))
        torch.testing.assert_close(logits, session.logits(x), rtol=1e-4, atol=1e-5)
        assert value.shape == (5,)
        error = (gradient - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
        assert error.median() < 1e-4

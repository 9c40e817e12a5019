"""The hold-out, and the PyTorch session that attacks run on."""

from functools import partial

import numpy as np
import pytest
import torch

from pipeline.models.layers import Folded
from pipeline.runs.evaluate import TorchSession, holdout_accuracy
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

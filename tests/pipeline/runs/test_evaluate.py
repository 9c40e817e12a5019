"""The hold-out, and the PyTorch session that attacks run on."""

from functools import partial

import numpy as np
import pytest
import torch

from pipeline.models.captured import uncaptured
from pipeline.models.layers import Folded
from pipeline.runs import evaluate
from pipeline.runs.evaluate import TorchSession, attacked, holdout_accuracy, placement, teacher_entropy
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.batches.fixed_sizes import fixed_size
from runtime.errors import BadModel, MissingEnvironment, OutOfMemory
from runtime.images.image_set import ImageSet
from runtime.session import Batching
from runtime.spec import ThreatModel
from runtime.terminal.progress import Silent
from runtime.verdict.case import verify
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject


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


class Masked(torch.nn.Module):
    """Answers as a network does, and hides its slope."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.detach()) + 0 * x.mean()


def test_what_hides_its_slope_falls_to_that_of_the_network_which_it_answers_as():
    pixels = np.repeat(np.arange(100, 156, dtype=np.uint8), 4).reshape(-1, 1, 2, 2)
    images = ImageSet("levels", pixels, (np.arange(56) > 27).astype(np.int64), np.arange(56))
    judged = partial(attacked, images=images, classes=2, eps=16 / 255, device=torch.device("cpu"))
    open_, masked = judged(Bright()), judged(Masked(Bright()))
    assert masked.robust.sum() > open_.robust.sum()
    lent = judged(Masked(Bright()), lender=Bright())
    assert lent.correct.tolist() == masked.correct.tolist()
    assert lent.robust.tolist() == open_.robust.tolist()
    assert 1 in lent.broken_by
    unhelpful = judged(Bright(), lender=Masked(Bright()))
    assert unhelpful.robust.tolist() == open_.robust.tolist()


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


def test_passes_over_buffers_that_keep_their_place_answer_as_eager_ones_to_the_bit(trained_like):
    cpu = torch.device("cpu")
    eager = TorchSession(trained_like, sha256="", device=cpu)
    static = TorchSession(trained_like, sha256="", device=cpu, recorder=lambda: uncaptured)
    for asked in range(3):
        x = torch.rand(20, 1, 28, 28)
        loss = cross_entropy(one_hot((torch.arange(20) + asked) % 10, 10))
        ours, theirs = static.loss_gradient(x, loss), eager.loss_gradient(x, loss)
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        assert torch.equal(static.logits(x), eager.logits(x))


class OnAGpu(TorchSession):
    """Asked as on a GPU, and captured by the stand-in."""

    def __init__(self, network, **rest):
        super().__init__(network, **rest, recorder=lambda: uncaptured)

    def batching(self, image):
        return Batching(512, full=True)


def noise(n):
    """Images [n, 1, 6, 6], labels and a network that answers them; PGD breaks a part of them."""
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1, 6, 6)).astype(np.uint8)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5))
    labels = network(torch.from_numpy(pixels / np.float32(255))).argmax(dim=1).numpy()
    return network, ImageSet("noise", pixels, labels, np.arange(n))


@pytest.mark.parametrize("batch", [100, 150])
def test_evaluate_on_a_gpu_attacks_units_side_by_side_in_few_sizes_to_the_same_evidence(batch):
    network, images = noise(300)
    network.seen = seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    found, sizes = [], []
    for kind in (TorchSession, OnAGpu):
        seen.clear()
        with kind(network, sha256="0" * 64, device=torch.device("cpu")) as session:
            subject = Subject(
                session=session,
                name="noise",
                classes=tuple("abcde"),
                shape=(1, 6, 6),
                images=images,
                command="edgeproof evaluate RUN",
                threat_model=ThreatModel(eps=4 / 255),
                to_device=placement(torch.device("cpu")),
            )
            options = VerifyOptions(attacks=("fgsm", "pgd"), no_gate=True, batch=batch)
            found.append(verify(subject, options, Silent()).evidence)
        sizes.append(set(seen))
    assert 0 < found[0].robust.sum() < 300
    np.testing.assert_array_equal(found[0].broken_by, found[1].broken_by)
    np.testing.assert_allclose(found[0].margin, found[1].margin, rtol=1e-4, atol=1e-5)
    assert sizes[1] <= {1, batch, *(fixed_size(n) for n in range(2, batch) if fixed_size(n) < batch)}
    assert len(sizes[0]) > len(sizes[1])


def test_a_hold_out_on_a_gpu_is_asked_the_same_way_to_the_same_figures(monkeypatch):
    pixels = np.random.default_rng(0).integers(100, 156, (300, 1, 2, 2)).astype(np.uint8)
    images = ImageSet("levels", pixels, (pixels.mean((1, 2, 3)) > 120).astype(np.int64), np.arange(300))
    plain, full = Roomy(300), Roomy(300)
    measure = partial(holdout_accuracy, images=images, classes=2, eps=0.02, device=torch.device("cpu"))
    expected = measure(plain)
    monkeypatch.setattr(evaluate, "TorchSession", OnAGpu)
    assert measure(full) == expected
    assert set(full.seen) <= {1, 250, *map(fixed_size, range(2, 193))}
    assert set(plain.seen) - set(full.seen)


def test_a_graph_that_goes_wrong_in_a_hold_out_gives_no_figure(monkeypatch):
    """Later replays answer what the capture did: attacked points seem to survive."""

    def stale_later(work):
        results, again = uncaptured(work)
        left = iter(range(3))
        return results, lambda: again() if next(left, None) is not None else None

    network, images = noise(300)
    measure = partial(holdout_accuracy, network, images, classes=5, eps=4 / 255, device=torch.device("cpu"))
    for recorder in (uncaptured, stale_later):
        monkeypatch.setattr(evaluate, "TorchSession", partial(TorchSession, recorder=partial(lambda it: it, recorder)))
        if recorder is uncaptured:
            assert 0 < measure()[1] < 1
            continue
        with pytest.raises(BadModel, match="the answers of a CUDA graph are in doubt: it gives other answers"):
            measure()


def test_on_a_cpu_nothing_is_captured_and_a_batch_is_passed_as_it_is():
    network = Roomy(300)
    session = TorchSession(network, sha256="", device=torch.device("cpu"))
    for _ in range(3):
        session.logits(torch.rand(17, 1, 2, 2))
    assert network.seen == [17, 17, 17]


def test_what_was_captured_makes_room_where_memory_runs_out():
    made = []

    def recorder():
        made.append(len(made))
        return uncaptured

    session = TorchSession(Roomy(24), sha256="", device=torch.device("cpu"), recorder=recorder)
    session.logits(torch.rand(24, 1, 2, 2))
    with pytest.raises(OutOfMemory):
        session.logits(torch.rand(25, 1, 2, 2))
    assert made == [0, 1]
    assert session.logits(torch.rand(10, 1, 2, 2)).shape == (10, 2)

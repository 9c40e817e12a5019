"""The PyTorch network behind the Session protocol: attacked by the very code that attacks the exported artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.memory import keep_freed_memory, running_out
from pipeline.methods.losses import probabilities
from pipeline.runs.directory import TrainedRun
from pipeline.training.precision import arithmetic
from runtime.attacks import PGD, Attack
from runtime.attacks.losses import value_and_cotangent
from runtime.images.image_set import ImageSet
from runtime.session import GraphFacts, LossSpec, Session, SessionCard
from runtime.suite.batch_halving import BatchHalving
from runtime.suite.campaign import Campaign, Target, clean_pass
from runtime.suite.evidence import Evidence
from runtime.terminal.progress import Silent
from runtime.verdict.case import Subject

FLOAT = GraphFacts(quantised=False, computes_in="float32", staircases=())
"""Of every network of `pipeline.models`: none rounds or steps."""
HOLDOUT_BATCH = 250
"""Hold-out images at a time; fewer where they do not fit the device's memory."""


class TorchSession(Session):
    """A network in eval mode on one device, in fp32 whatever it was trained in. Arrays are float32 tensors there.

    The cross-entropy is seeded as in the exported gradient graph, so that both sides attack confident images with
    the same gradient.
    """

    def __init__(self, network: nn.Module, *, sha256: str, device: torch.device) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self._sha256 = sha256

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, K].

        Raises:
            OutOfMemory: so many images do not fit.

        """
        with running_out(), torch.no_grad(), arithmetic("fp32", self.device):
            return self.network(x)  # type: ignore[no-any-return]

    def loss_gradient(self, x: Tensor, loss: LossSpec) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits [B, K], values [B] and gradients [B, C, H, W]; raises as `logits` does."""
        with running_out(), torch.enable_grad(), arithmetic("fp32", self.device):
            points = x.detach().requires_grad_()
            logits = self.network(points)
            value, cotangent = value_and_cotangent(logits.detach(), loss)
            (gradient,) = torch.autograd.grad(logits, points, cotangent)
        return logits.detach(), value, gradient

    def card(self) -> SessionCard:
        """Return what this session attacks."""
        name = device_name(self.device)
        return SessionCard(self._sha256, "fp32", "torch", self.device.type, name, facts=FLOAT)


def run_subject(trained: TrainedRun, images: ImageSet, *, device: torch.device) -> Subject:
    """Return a finished run's network as the subject of a verdict on `images`."""
    keep_freed_memory()
    card = trained.card
    return Subject(
        session=TorchSession(trained.network, sha256=trained.checkpoint_sha256, device=device),
        name=trained.recipe.name,
        classes=card.classes,
        shape=(card.input.channels, card.input.height, card.input.width),
        images=images,
        command=f"edgeproof evaluate RUN --checkpoint {trained.checkpoint}",
        threat_model=trained.recipe.threat,
        gate=trained.recipe.gate,
        libraries=("edgeproof", "numpy", "torch"),
        to_device=placement(device),
    )


def placement(device: torch.device) -> Callable[[Any], Tensor]:
    """Return the function that brings numpy arrays to a device."""
    return lambda array: torch.from_numpy(array).to(device)


def holdout_accuracy(
    network: nn.Module, images: ImageSet, *, classes: int, eps: float, device: torch.device
) -> tuple[float, float]:
    """Return clean and PGD-10 accuracy of a frozen network, as fractions of the images; raises as `attacked` does."""
    evidence = attacked(network, images, classes=classes, eps=eps, device=device)
    return float(evidence.correct.mean()), float(evidence.robust.mean())


def attacked(
    network: nn.Module,
    images: ImageSet,
    *,
    classes: int,
    eps: float,
    device: torch.device,
    attack: Attack = PGD,
    keep: bool = False,
) -> Evidence:
    """Return what a frozen network answers before and under one attack; with `keep`, also the points found.

    Raises:
        OutOfMemory: not even one image fits the device's memory.

    """
    session = BatchHalving(TorchSession(network, sha256="", device=device))
    target = Target(session, images, classes, HOLDOUT_BATCH, placement(device))
    evidence = clean_pass(target, len(images) if keep else 0, Silent())
    Campaign(target, evidence, eps, 0, Silent()).attack(attack, 0)
    return evidence


def teacher_entropy(teacher: nn.Module, evidence: Evidence, device: torch.device) -> float | None:
    """Return the mean entropy of T(x'), in nats, over the images that the student gets wrong; None where there is none.

    x' is where it gets them wrong: the image itself, or the point that the attack found. A teacher that is sure where a
    student cannot follow makes it learn noise (Lee and Chung, ICML 2026, arXiv 2605.21999). They ask that of training
    images that students keep failing on; here it is asked of hold-out images, and of the student as it is.

    Args:
        teacher: frozen.
        evidence: of the student, by `attacked` with the points kept.
        device: where the teacher is.

    """
    points = evidence.adversarial[~evidence.robust]
    if not len(points):
        return None
    session, place = BatchHalving(TorchSession(teacher, sha256="", device=device)), placement(device)
    total = 0.0
    for start in range(0, len(points), HOLDOUT_BATCH):
        answer = probabilities(session.logits(place(points[start : start + HOLDOUT_BATCH])))
        total += float(torch.special.entr(answer).sum())
    return total / len(points)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or 'cpu'."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

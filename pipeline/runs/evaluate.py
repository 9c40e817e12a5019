"""The PyTorch network behind the Session protocol: attacked by the very code that attacks the exported artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.memory import keep_freed_memory, running_out
from pipeline.runs.directory import TrainedRun
from pipeline.training.precision import arithmetic
from runtime.attacks import PGD
from runtime.attacks.losses import value_and_cotangent
from runtime.batches.halving import BatchHalving
from runtime.images.image_set import ImageSet
from runtime.session import GraphFacts, LossSpec, Session, SessionCard
from runtime.suite.campaign import Campaign, Target, clean_pass
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
    """Return clean and PGD-10 accuracy of a frozen network, as fractions of the images.

    Raises:
        OutOfMemory: not even one image fits the device's memory.

    """
    session = BatchHalving(TorchSession(network, sha256="", device=device))
    target = Target(session, images, classes, HOLDOUT_BATCH, placement(device))
    evidence = clean_pass(target, 0, Silent())
    under_pgd = Campaign(target, evidence, eps, 0, Silent()).attack(PGD, 0)
    return float(evidence.correct.mean()), under_pgd.accuracy


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or 'cpu'."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

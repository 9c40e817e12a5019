"""The PyTorch network as a Session, which the same code attacks as the exported artifact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.cuda_graphs import Tensors
from pipeline.memory import keep_freed_memory, running_out
from pipeline.methods.losses import probabilities
from pipeline.models.captured import Function, Recorder, Replays, cuda_graphs
from pipeline.runs.directory import TrainedRun
from pipeline.training.precision import arithmetic
from runtime.attacks import PGD, Attack
from runtime.attacks.losses import value_and_cotangent
from runtime.backends.batching import on_gpu
from runtime.batches.fixed_sizes import FixedSizes
from runtime.batches.halving import BatchHalving
from runtime.errors import OutOfMemory
from runtime.images.image_set import ImageSet
from runtime.session import Batching, GraphFacts, LossSpec, Session, SessionCard
from runtime.suite.campaign import Campaign
from runtime.suite.evidence import Evidence
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from runtime.verdict.case import Subject

FLOAT = GraphFacts(quantised=False, computes_in="float32", staircases=())
"""The facts of every network of `pipeline.models`: none of them rounds or has steps."""
HOLDOUT_BATCH = 250
"""Hold-out images in one batch; fewer if they do not fit the device's memory."""


class TorchSession(Session):
    """A network in eval mode on one device, in fp32 regardless of its training. Arrays are float32 tensors there.

    The cross-entropy is seeded as in the exported gradient graph, so that both sides attack confident images with
    the same gradient.

    Args:
        network: the network to attack; its answer to an image depends on that image only.
        sha256: the digest of the checkpoint.
        device: the device on which it runs.
        recorder: makes the recorder that captures passes, one for each batch size. By default, passes become CUDA
            graphs on a GPU, and run eagerly elsewhere.

    """

    def __init__(
        self,
        network: nn.Module,
        *,
        sha256: str,
        device: torch.device,
        recorder: Callable[[], Recorder] | None = None,
    ) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self._sha256 = sha256
        self._forward, self._gradient = partial(forward, self.network), partial(gradient, self.network)
        if recorder is None and device.type == "cuda":
            recorder = partial(cuda_graphs, device)
        self._replays = Replays(recorder) if recorder else None

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, K].

        Raises:
            OutOfMemory: the batch does not fit into memory.

        """
        (logits,) = self._ask(self._forward, x)
        return logits

    def loss_gradient(self, x: Tensor, loss: LossSpec) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits [B, K], values [B] and gradients [B, C, H, W]. Raises the same errors as `logits`."""
        logits, value, gradient = self._ask(self._gradient, x, *vars(loss).values())
        return logits, value, gradient

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return the best batching for images of one shape."""
        if self.device.type != "cuda":
            return Batching()
        return on_gpu(torch.cuda.get_device_properties(self.device).total_memory, image)

    def card(self) -> SessionCard:
        """Return the description of this session."""
        name = device_name(self.device)
        return SessionCard(self._sha256, "fp32", "torch", self.device.type, name, facts=FLOAT)

    def confirm(self) -> None:
        """Compare the replays since the last check with eager passes. Raises the same errors as `Replays.hold`."""
        if self._replays:
            self._replays.hold()

    def close(self) -> None:
        """Release the captures."""
        if self._replays:
            self._replays.clear()

    def _ask(self, function: Function, *inputs: Tensor) -> Tensors:
        try:
            with running_out():
                return self._replays.ask(function, *inputs) if self._replays else function(*inputs)
        except OutOfMemory:
            self.confirm()
            self.close()  # smaller batches need the memory
            raise


def forward(network: nn.Module, x: Tensor) -> Tensors:
    """Return (logits [B, K],) in fp32."""
    with torch.no_grad(), arithmetic("fp32", x.device):
        return (network(x),)


def gradient(network: nn.Module, x: Tensor, *loss: Tensor) -> Tensors:
    """Return logits [B, K], values [B] and gradients [B, C, H, W] in fp32, of the loss of these fields of LossSpec."""
    with torch.enable_grad(), arithmetic("fp32", x.device):
        points = x.detach().requires_grad_()
        logits = network(points)
        value, cotangent = value_and_cotangent(logits.detach(), LossSpec(*loss))
        (slope,) = torch.autograd.grad(logits, points, cotangent)
    return logits.detach(), value, slope


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
        OutOfMemory: see `attacked`.

    """
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
    lender: nn.Module | None = None,
) -> Evidence:
    """Return the evidence of a frozen network before and under one attack; with `keep`, also the points found.

    With a `lender`, images that survived the attack are attacked again with the lender's gradient. The network judges
    every point.

    Raises:
        OutOfMemory: not even one image fits the device's memory.

    """
    session = TorchSession(network, sha256="", device=device)
    full = session.batching(images.images.shape[1:]).full
    slopes = None if lender is None else _sized(TorchSession(lender, sha256="", device=device), full)
    target = Target(_sized(session, full), images, classes, HOLDOUT_BATCH, placement(device), slopes, full=full)
    evidence = clean_pass(target, len(images) if keep else 0, Silent())
    campaign = Campaign(target, evidence, eps, 0, Silent())
    campaign.attack(attack, 0)
    if lender is not None:
        campaign.attack(attack, 1, np.flatnonzero(evidence.robust), "parent")
    return evidence


def _sized(session: TorchSession, full: bool) -> Session:
    """Return a session for up to HOLDOUT_BATCH images, split as memory requires; with `full`, in few batch sizes."""
    return FixedSizes(BatchHalving(session), HOLDOUT_BATCH) if full else BatchHalving(session)


def teacher_entropy(teacher: nn.Module, evidence: Evidence, device: torch.device) -> float | None:
    """Return the mean entropy of T(x'), in nats, over the images that the student gets wrong; None if there are none.

    x' is the point where the student is wrong: the image itself, or the point that the attack found. A teacher that is
    confident where a student cannot follow makes it learn noise (Lee and Chung, ICML 2026, arXiv 2605.21999). The paper
    measures this on training images that students keep getting wrong. Here it is measured on hold-out images.

    Args:
        teacher: the frozen teacher.
        evidence: the student's evidence from `attacked`, with the points kept.
        device: the teacher's device.

    """
    points = evidence.adversarial[~evidence.robust]
    if not len(points):
        return None
    network, place = TorchSession(teacher, sha256="", device=device), placement(device)
    session = _sized(network, network.batching(points.shape[1:]).full)
    total = 0.0
    for start in range(0, len(points), HOLDOUT_BATCH):
        answer = probabilities(session.logits(place(points[start : start + HOLDOUT_BATCH])))
        total += float(torch.special.entr(answer).sum())
    session.confirm()
    return total / len(points)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or 'cpu'."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

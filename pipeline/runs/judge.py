"""Attacks both checkpoints of a run with an attack that chose neither of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pipeline.models.checkpoint import load_checkpoint
from pipeline.models.layers import Folded
from pipeline.runs.directory import CHECKPOINTS, Judged
from pipeline.runs.evaluate import attacked
from pipeline.training.trainer import Shipped
from runtime.attacks import PGD
from runtime.images.image_set import ImageSet

JUDGE = replace(PGD, name="pgd-20", defaults={**PGD.defaults, "steps": 20})
"""PGD with twice the steps. It has its own start, because the noise of an attack depends on its name."""


def judge(
    directory: Path,
    images: ImageSet,
    *,
    eps: float,
    device: torch.device,
    shipped: Callable[[nn.Module], Shipped] = lambda network: Shipped(Folded(network)),
) -> Judged:
    """Attack the best and the last checkpoint in a run directory on its hold-out images, in the ball of radius eps.

    `shipped` turns a network into the form that is attacked.
    """
    files = [directory / CHECKPOINTS[which] for which in ("best", "last")]
    last = _accuracy(files[1], images, eps, device, shipped)
    best = last if files[0].read_bytes() == files[1].read_bytes() else _accuracy(files[0], images, eps, device, shipped)
    return Judged(attack=JUDGE.name, n=len(images), best=best, last=last, overfitting=best - last)


def _accuracy(
    checkpoint: Path, images: ImageSet, eps: float, device: torch.device, shipped: Callable[[nn.Module], Shipped]
) -> float:
    network, card = load_checkpoint(checkpoint)
    frozen, lender = shipped(network.eval().to(device))
    evidence = attacked(frozen, images, classes=len(card.classes), eps=eps, device=device, attack=JUDGE, lender=lender)
    return float(evidence.robust.mean())

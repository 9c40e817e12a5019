"""Both checkpoints of a run under an attack that chose neither of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pipeline.models.checkpoint import load_checkpoint
from pipeline.models.layers import Folded
from pipeline.runs.directory import CHECKPOINTS, Judged
from pipeline.runs.evaluate import attacked
from runtime.attacks import PGD
from runtime.images.image_set import ImageSet

JUDGE = replace(PGD, name="pgd-20", defaults={**PGD.defaults, "steps": 20})
"""PGD of twice the steps, from a start of its own: the noise of an attack follows from its name."""


def judge(directory: Path, images: ImageSet, *, eps: float, device: torch.device) -> Judged:
    """Attack the best and the last checkpoint in a run directory on its hold-out images, in the ball of radius eps."""
    files = [directory / CHECKPOINTS[which] for which in ("best", "last")]
    last = _accuracy(files[1], images, eps, device)
    best = last if files[0].read_bytes() == files[1].read_bytes() else _accuracy(files[0], images, eps, device)
    return Judged(attack=JUDGE.name, n=len(images), best=best, last=last, overfitting=best - last)


def _accuracy(checkpoint: Path, images: ImageSet, eps: float, device: torch.device) -> float:
    network, card = load_checkpoint(checkpoint)
    frozen = Folded(network.to(device))
    evidence = attacked(frozen, images, classes=len(card.classes), eps=eps, device=device, attack=JUDGE)
    return float(evidence.robust.mean())

"""Losses on logits [B, K], one value per image [B], and the one place that reduces them to a number.

Temperature t divides the logits before the softmax. KL(P || Q) = sum_c P_c log(P_c / Q_c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "batchmean"]


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return -log softmax(z)_y for int64 labels [B], or -sum_c p_c log softmax(z)_c for probabilities [B, K].

    `smoothing` s takes (1 - s) of the target and spreads s evenly over all classes (Szegedy et al., CVPR 2016, 7).
    """
    return F.cross_entropy(_at_least_float(logits), labels, reduction="none", label_smoothing=smoothing)


def one_hot(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Return labels [B] as float32 probabilities [B, K], smoothed as those of `cross_entropy`.

    Unlike PyTorch's function, it reads no value, so nothing waits for the device.
    """
    hard = (torch.arange(classes, device=labels.device) == labels[:, None]).float()
    return (1 - smoothing) * hard + smoothing / classes


def probabilities(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Return softmax(z / t), [B, K]."""
    return F.softmax(_at_least_float(logits) / temperature, dim=1)


def kl(p_logits: Tensor, q_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(softmax(p / t) || softmax(q / t)) for every image, differentiable in both."""
    log_p = F.log_softmax(_at_least_float(p_logits) / temperature, dim=1)
    log_q = F.log_softmax(_at_least_float(q_logits) / temperature, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "batchmean": lambda values, classes: values.mean(),
    "mean": lambda values, classes: values.mean() / classes,
}
"""'mean' divides by B*K as torch's KLDivLoss() does by default: with K classes, 1/K of 'batchmean'."""


def reduce(values: Tensor, reduction: Reduction, classes: int) -> Tensor:
    """Reduce one loss value per image, [B], to the number that training minimises."""
    return REDUCTIONS[reduction](values, classes)


def _at_least_float(logits: Tensor) -> Tensor:
    return logits if logits.dtype.itemsize >= 4 else logits.float()

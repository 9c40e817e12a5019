"""Compares the exported graph with the trained network in logits, predictions and gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from runtime.attacks.losses import cross_entropy, one_hot
from runtime.bundle.manifest import Parity

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from export.limits import Limits
    from runtime.images.image_set import ImageSet
    from runtime.session import Session

GRADIENT_IMAGES = 512
"""Number of images on which gradients are compared; logits are compared on all."""
BATCH = 64


def reference_logits(network: nn.Module, images: ImageSet) -> NDArray[np.float32]:
    """Return the logits [N, K] of a network in evaluation mode, computed by PyTorch on the device it is on."""
    with torch.no_grad():
        rows = [network(_tensor(images.as_float(part), network)).cpu().numpy() for part in _batches(len(images))]
    return np.concatenate(rows)


def measure_parity(
    network: nn.Module, session: Session, images: ImageSet, logits: NDArray[np.float32], limits: Limits
) -> Parity:
    """Compare a session over the exported graphs with the network they came from.

    Args:
        network: in evaluation mode.
        session: of the exported forward and gradient graph.
        images: the evaluation set.
        logits: [N, K], the network's own on these images (`reference_logits`).
        limits: for the record; `export.limits.refuse_beyond_limits` applies them.

    Raises:
        NonFinite, BadModel: from the session.

    """
    exported = np.concatenate([session.logits(images.as_float(part)) for part in _batches(len(images))])
    parts = _batches(min(len(images), GRADIENT_IMAGES))
    errors = [_gradient_errors(network, session, images.rows(part), logits.shape[1]) for part in parts]
    return Parity(
        max_logit_error=_relative(exported - logits, logits),
        max_logit_error_limit=limits.logit,
        prediction_agreement=float(np.mean(exported.argmax(axis=1) == logits.argmax(axis=1))),
        prediction_agreement_limit=limits.agreement,
        median_gradient_error=float(np.median(np.concatenate(errors))),
        median_gradient_error_limit=limits.gradient,
    )


def _gradient_errors(network: nn.Module, session: Session, images: ImageSet, classes: int) -> NDArray[Any]:
    """Return, per image, the largest difference of the cross-entropy gradient relative to its largest value."""
    x = images.as_float(slice(None))
    label = one_hot(images.labels, classes)
    _, _, gradients = session.loss_gradient(x, cross_entropy(label))
    expected = _cross_entropy_gradient(network, x, label)
    return np.asarray([_relative(g - e, e) for g, e in zip(gradients, expected, strict=True)])


def _cross_entropy_gradient(network: nn.Module, x: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """Return PyTorch's gradient [B, C, H, W], seeded as the gradient graph does it: see `export.losses`."""
    images, own = _tensor(x, network).requires_grad_(True), _tensor(label, network)
    logits = network(images)
    others = torch.softmax(logits.detach(), dim=1) * (1 - own)
    (gradient,) = torch.autograd.grad(logits, images, others - own * others.sum(dim=1, keepdim=True))
    return gradient.cpu().numpy()


def _relative(difference: NDArray[Any], scale: NDArray[Any]) -> float:
    """Return max |difference| / max |scale|; 0 where both are 0."""
    largest = float(np.abs(difference).max())
    return largest and largest / max(float(np.abs(scale).max()), float(np.finfo(np.float32).tiny))


def _tensor(array: NDArray[Any], network: nn.Module) -> torch.Tensor:
    parameter = next(network.parameters(), torch.empty(0))
    return torch.from_numpy(np.ascontiguousarray(array)).to(parameter.device)


def _batches(n: int) -> list[slice]:
    return [slice(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]

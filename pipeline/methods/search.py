"""The inner search: the point in the ball around each image where a method's objective is highest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.methods.method import Objective, View
from runtime.spec import Fraction, Frozen

Precision = Literal["auto", "fp32", "tf32", "bf16"]
"""Arithmetic of a forward pass and of what it differentiates to; `auto` depends on the device."""


class SearchSpec(Frozen):
    """`steps` signed-gradient steps of size `step` in the L-infinity ball of radius `eps`, on images in [0, 1].

    The steps are computed in `precision`; None is that of training.
    """

    eps: Fraction = 8 / 255
    step: Fraction = 2 / 255
    steps: Annotated[int, Field(ge=0)] = 10
    precision: Precision | None = None


def _gaussian(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    return 0.001 * torch.randn(images.shape, generator=generator, device=images.device)


def _uniform(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    return eps * (2 * torch.rand(images.shape, generator=generator, device=images.device) - 1)


STARTS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {"gaussian": _gaussian, "uniform": _uniform}


def search(objective: Objective, view: View, noise: Tensor, spec: SearchSpec, clamped: bool = True) -> Tensor:
    """Return x' [B, C, H, W]: within the ball around the view's images and [0, 1], detached.

    Only the gradient in x' is computed, and none is stored: autograd skips that of the weights.

    Args:
        objective: what is maximised at x'.
        view: the batch and the networks.
        noise: the noise that is added to the images at the start: one of STARTS, [B, C, H, W].
        spec: the ball and the steps.
        clamped: whether the first gradient is also taken within the ball and [0, 1], as all others are.

    """
    images = view.images
    low, high = (images - spec.eps).clamp_(0, 1), (images + spec.eps).clamp_(0, 1)
    points = images + noise
    if clamped or spec.steps == 0:
        points = torch.clamp(points, low, high)
    for _ in range(spec.steps):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(view, points).sum(), points)
        points = torch.clamp(torch.add(points.detach(), gradient.sign(), alpha=spec.step), low, high)
    return points

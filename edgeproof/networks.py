"""Checks a network before it is exported or trained."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from runtime.errors import BadModel, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_module(network: Any, called: str) -> None:
    """Check that what is given as a network is one.

    Raises:
        BadModel: it is a class, or not an nn.Module.

    """
    if not isinstance(network, nn.Module):
        given = f"the class {network.__name__}" if isinstance(network, type) else f"of type {type(network).__name__}"
        raise BadModel(f"the {called} is {given}, no network", hint="give an instance of nn.Module")


def check_gradient(network: nn.Module, image: Tensor) -> None:
    """Check that the logits of a network have a gradient with respect to an image, [1, C, H, W].

    Raises:
        BadModel: they have none.

    """
    parameter = next(network.parameters(), image)
    image = image.detach().to(parameter.device).requires_grad_()
    with torch.enable_grad(), in_eval_mode(network):
        logits = network(image)
    # Logits may have a gradient with respect to the weights alone.
    if not logits.requires_grad or torch.autograd.grad(logits.sum(), image, allow_unused=True)[0] is None:
        raise BadModel(
            "the network's logits have no gradient with respect to the images",
            hint="leave detach(), .data, numpy() and torch.no_grad() out of its forward",
        )


def count_logits(network: Any, image: Tensor, called: str) -> int:
    """Return the number of logits of a network; its mode and its statistics are not changed.

    The network is asked about the image twice in one batch, so that one that takes single images only is noticed.

    Args:
        network: should be an nn.Module, on any device.
        image: one image, [1, C, H, W].
        called: the name of the network in errors.

    Raises:
        BadModel: it is not a network, it does not take the image, or it does not answer with a row of logits.

    """
    check_module(network, called)
    parameter = next(network.parameters(), image)
    if parameter.dtype != image.dtype:
        raise BadModel(
            f"the {called} computes in {parameter.dtype}, and the images are {image.dtype}", hint=f"{called}.float()"
        )
    try:
        with torch.no_grad(), in_eval_mode(network):
            logits = network(image.to(parameter.device).repeat(2, 1, 1, 1))
    except (RuntimeError, TypeError, ValueError) as error:
        raise BadModel(
            f"the {called} does not take images of {tuple(image.shape[1:])}: {first_line(error)}",
            hint="images are [B, C, H, W], channels first, and B is any number",
        ) from error
    if not isinstance(logits, Tensor):
        raise BadModel(
            f"the {called} answers with a {type(logits).__name__}, not with a tensor",
            hint="let its forward return the logits [B, K] alone",
        )
    if logits.ndim != 2 or len(logits) != 2:
        raise BadModel(
            f"the {called} answers two images with shape {tuple(logits.shape)}", hint="it must give logits, [B, K]"
        )
    return logits.shape[1]


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore the mode of each module afterwards, also after an error."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode

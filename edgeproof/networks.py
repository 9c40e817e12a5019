"""Checks a network before it is exported or trained."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from runtime.errors import BadModel, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator


def count_logits(network: Any, image: Tensor, called: str) -> int:
    """Return the number of logits of a network; its mode and its statistics are not changed.

    Args:
        network: should be an nn.Module, on any device.
        image: one image, [1, C, H, W].
        called: the name of the network in errors.

    Raises:
        BadModel: it is not a network, it does not take the image, or it does not answer with a row of logits.

    """
    if not isinstance(network, nn.Module):
        given = f"the class {network.__name__}" if isinstance(network, type) else f"of type {type(network).__name__}"
        raise BadModel(f"the {called} is {given}, no network", hint="give an instance of nn.Module")
    parameter = next(network.parameters(), image)
    if parameter.dtype != image.dtype:
        raise BadModel(
            f"the {called} computes in {parameter.dtype}, and the images are {image.dtype}", hint=f"{called}.float()"
        )
    try:
        with torch.no_grad(), in_eval_mode(network):
            logits = network(image.to(parameter.device))
    except (RuntimeError, TypeError, ValueError) as error:
        raise BadModel(
            f"the {called} does not take images of {tuple(image.shape[1:])}: {first_line(error)}",
            hint="images are [B, C, H, W], channels first",
        ) from error
    if not isinstance(logits, Tensor):
        raise BadModel(
            f"the {called} answers with a {type(logits).__name__}, not with a tensor",
            hint="let its forward return the logits [B, K] alone",
        )
    if logits.ndim != 2 or len(logits) != 1:
        raise BadModel(
            f"the {called} answers one image with shape {tuple(logits.shape)}", hint="it must give logits, [B, K]"
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

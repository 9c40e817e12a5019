"""Networks of the user: each is made by a function that is named as `package.module:function`."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import safetensors.torch
import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from pipeline.models.layers import Folded, Normalize
from runtime.errors import BadRecipe, first_line
from runtime.spec import Text

EXAMPLE = "my_package.nets:make"
GIVES = "def make(channels: int, classes: int) -> nn.Module, from normalised images [B, C, H, W] to logits [B, K]"
"""Says in hints what a factory is."""
FOLDED = 1e-3
"""Largest difference between a folded copy and its network, relative to the largest logit."""
MOVED = 0.1
"""Standard deviation of what is added to the weights of a network that has no gradient at the images."""
LISTED = 3
"""How many weights an error names."""
PASSES = 64
"""Training passes that look for a gradient; a layer skipped with a probability of 0.8 is missed once in a million."""


def _named(factory: str) -> str:
    module, colon, function = factory.partition(":")
    if not (colon and function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"{factory!r} does not name a function, as {EXAMPLE} does")
    return factory


Factory = Annotated[Text, AfterValidator(_named)]
"""The name of a function. It is imported only when the network is made."""


class Made(nn.Module):
    """A network with its normalisation in front: raw images in [0, 1] to logits.

    Args:
        network: from normalised images to logits.
        mean: per channel.
        std: likewise.

    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.normalize(x))  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


def made_by(factory: str, *, channels: int, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Return the network that a factory makes, freshly initialised, with its normalisation in front.

    The module may be in the working directory, which is searched after all installed packages. Its code is executed: do
    not name a module that you do not trust.

    Raises:
        BadRecipe: there is no such function, it cannot be called with `channels` and `classes`, or it does not return
            a network.

    """
    name, _, function = factory.partition(":")
    try:
        with _working_directory_last():
            network = getattr(importlib.import_module(name), function)(channels=channels, classes=classes)
    except Exception as error:  # of whatever kind a user's code raises
        raise BadRecipe(f"{factory}: {type(error).__name__}: {first_line(error)}", hint=GIVES) from error
    if not isinstance(network, nn.Module):
        raise BadRecipe(f"{factory} returns {type(network).__name__}, not a torch.nn.Module", hint=GIVES)
    return Made(network, mean, std)


def check_made(factory: str, network: nn.Module, image: tuple[int, int, int], classes: int) -> None:
    """Check that a factory's network, student or teacher, can be saved and judged.

    Args:
        factory: for messages.
        network: on the CPU.
        image: (C, H, W).
        classes: how many logits it must have.

    Raises:
        BadRecipe: it does not answer each image with this many finite logits; in evaluation mode, the answer to an
            image depends on the others of its batch; its weights cannot be stored; folding its batch normalisations
            changes its answers; or its logits have no gradient at the images.

    """
    images = _three(image)
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits = _logits(factory, network, images, classes)
            if not bool(logits.isfinite().all()):
                raise BadRecipe(f"{factory}: its logits are not finite", hint="check how the network is initialised")
            _check_same(factory, network(images[:1]), logits[:1], "an image alone gives other logits than in a batch")
            _check_same(
                factory, Folded(network)(images), logits, "a copy with folded batch normalisations is another network"
            )
        safetensors.torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
        _check_slopes(factory, network, images)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BadRecipe(f"{factory}: {first_line(error)}", hint=GIVES) from error
    finally:
        network.train(mode)


def _check_slopes(factory: str, network: nn.Module, images: Tensor) -> None:
    """Raise `BadRecipe` if no gradient reaches the images: PGD would not move them.

    A last layer that starts at zero has no gradient either. So a copy with moved weights is asked too.
    """
    noise = torch.Generator().manual_seed(0)
    if not _slopes(network, images, noise) and not _slopes(_moved(network, noise), images, noise):
        raise BadRecipe(
            f"{factory}: the logits have no gradient at the images, so that attacks cannot move them",
            hint="pass a gradient through what rounds or detaches in forward: x + (x.round() - x).detach()",
        )


def _slopes(network: nn.Module, images: Tensor, noise: torch.Generator) -> bool:
    """Return whether a random sum of the logits has a gradient at the images."""
    points = images.clone().requires_grad_()
    logits = network(points)
    if not logits.requires_grad:
        return False
    which = torch.randn(logits.shape, generator=noise)
    (gradient,) = torch.autograd.grad((which * logits).sum(), points, allow_unused=True)
    return gradient is not None and bool(gradient.any())


def _moved(network: nn.Module, noise: torch.Generator) -> nn.Module:
    """Return a copy whose every weight is moved at random."""
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for weight in filter(torch.is_floating_point, moved.parameters()):
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=MOVED)
    return moved


def check_learns(
    factory: str, network: nn.Module, image: tuple[int, int, int], classes: int, *, training: bool = True
) -> None:
    """Check before training that a factory's network can be a student.

    A weight that does not require a gradient is frozen on purpose. Any other must get one, at least in one of PASSES
    passes: a network may skip layers at random (stochastic depth; Huang et al., ECCV 2016).

    Args:
        factory: see `check_made`, as are the next three.
        network: likewise.
        image: likewise.
        classes: likewise.
        training: the mode in which it learns; [int8] learns in evaluation mode.

    Raises:
        BadRecipe: all weights are frozen; in this mode, the network does not answer each image with this many
            logits; or in no pass has its loss a gradient in a weight that is not frozen.

    """
    student = copy.deepcopy(network).train(training)
    weights = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
    if not weights:
        raise BadRecipe(
            f"{factory}: the network has nothing to train",
            hint="its weights must be parameters that require a gradient",
        )
    unreached, mode = list(weights), "training" if training else "evaluation"
    for _ in range(PASSES):
        try:
            logits = _logits(factory, student, _three(image), classes)
            if not logits.requires_grad:  # the pass skipped all that learns
                continue
            gradients = torch.autograd.grad(logits.sum(), [weights[name] for name in unreached], allow_unused=True)
        except (RuntimeError, TypeError, ValueError) as error:
            raise BadRecipe(f"{factory}: in {mode} mode: {first_line(error)}", hint=GIVES) from error
        unreached = [name for name, gradient in zip(unreached, gradients, strict=True) if gradient is None]
        if not unreached:
            return
    names = [name.removeprefix("network.") for name in unreached]
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    raise BadRecipe(
        f"{factory}: {listed} get no gradient{'' if training else ' in evaluation mode, in which [int8] learns'}, "
        "so they would not learn",
        hint="use them in forward, remove them, or freeze them with requires_grad_(False)",
    )


def _three(image: tuple[int, int, int]) -> Tensor:
    return torch.rand(3, *image, generator=torch.Generator().manual_seed(0))


def _logits(factory: str, network: nn.Module, images: Tensor, classes: int) -> Tensor:
    """Return the answers to three images; raise `BadRecipe` unless they are logits [3, classes]."""
    logits = network(images)
    if not isinstance(logits, Tensor) or logits.shape != (3, classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        mode = ", in training mode," if network.training else ""
        raise BadRecipe(
            f"{factory}: the network answers three images{mode} with {shape}, not (3, {classes})", hint=GIVES
        )
    return logits


def _check_same(factory: str, one: Tensor, other: Tensor, fault: str) -> None:
    if float((one - other).abs().max()) > FOLDED * max(float(other.abs().max()), 1e-6):
        raise BadRecipe(f"{factory}: {fault}", hint="in evaluation mode, the answer must depend on the image only")


@contextmanager
def _working_directory_last() -> Iterator[None]:
    """Also search the working directory for modules, after all installed packages."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)

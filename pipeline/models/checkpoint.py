"""Checkpoints: safetensors whose header describes the network of the weights, as JSON. There is no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import safetensors.torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from pipeline.models import Blueprint, build_network
from runtime.bundle.manifest import InputShape
from runtime.errors import BadModel, first_line
from runtime.files import write_atomic
from runtime.spec import Frozen, Text, first_fault

METADATA_KEY = "edgeproof"


class Figures(Frozen):
    """Clean and PGD-10 accuracy on `n` hold-out images, as fractions, after `epoch` epochs.

    `teacher_entropy` is the mean entropy, in nats, of the teacher's answer where the student is wrong. It is None
    without a teacher, or if the student is never wrong.
    """

    epoch: int
    n: int
    clean: float
    pgd: float
    teacher_entropy: float | None = None


class NetworkCard(Blueprint):
    """The description in a checkpoint: enough to build the network again."""

    input: InputShape
    classes: Annotated[tuple[Text, ...], Field(min_length=2)]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    figures: Figures | None = None

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        return self.input.channels, self.input.height, self.input.width

    def build(self) -> nn.Module:
        """Return the network that the card describes, freshly initialised."""
        return build_network(
            self.arch,
            channels=self.input.channels,
            classes=len(self.classes),
            width=self.width,
            depth=self.depth,
            factory=self.factory,
            mean=self.mean,
            std=self.std,
        )


def save_checkpoint(path: Path, network: nn.Module, card: NetworkCard) -> None:
    """Write weights and card atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomic(
        path, safetensors.torch.save(tensors, metadata={METADATA_KEY: card.model_dump_json(exclude_none=True)})
    )


def load_checkpoint(path: Path) -> tuple[nn.Module, NetworkCard]:
    """Build the network that a checkpoint describes, on the CPU, with its weights.

    Raises:
        BadModel: the file is missing, damaged, not of this project, or its weights do not fit its card.

    """
    if not path.is_file():
        raise BadModel(f"there is no checkpoint at {path.resolve()}", hint="train one with `edgeproof distill RECIPE`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        card = NetworkCard.model_validate_json(metadata[METADATA_KEY])
        network = card.build()
        own, ours = network.state_dict(), card.architecture.ours  # an earlier version kept DeepMind's names
        network.load_state_dict({name if name in own else ours(name): tensor for name, tensor in tensors.items()})
    except (SafetensorError, KeyError, ValidationError, RuntimeError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else first_line(error)
        raise BadModel(f"{path} is not a checkpoint of edgeproof: {reason}", hint="is the file complete?") from None
    return network, card

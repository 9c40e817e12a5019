"""The state of an unfinished run, in one file: everything needed to resume it to the same weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.models.checkpoint import METADATA_KEY, Figures
from pipeline.runs.directory import STATE
from pipeline.training.trainer import Trainer
from runtime.errors import BadInput, first_line
from runtime.files import write_atomic
from runtime.spec import Digest, Frozen

DIGEST_KEY = "sha256"
START_ANEW = "remove the directory, or name another --out"


class Standing(Frozen):
    """The progress of a run, and the digests that must be unchanged to resume it.

    Random numbers have no state: they depend on the seed and the step or epoch.

    Args:
        steps: optimiser steps taken so far.
        lines: number of lines in metrics.jsonl.
        parts: number of parts of a batch, over all devices.
        best, last: hold-out figures of the best and the last epoch so far.
        seconds, busy_seconds: seconds so far, in total and in steps only.
        training_data, extra_data, teacher, start: digests.

    """

    steps: int = 0
    lines: int = 0
    parts: int
    best: Figures | None = None
    last: Figures | None = None
    seconds: float = 0.0
    busy_seconds: float = 0.0
    training_data: Digest
    extra_data: Digest | None = None
    teacher: Digest | None
    start: Digest | None = None


def save_state(directory: Path, standing: Standing, trainer: Trainer) -> None:
    """Write the state of a run atomically, with a digest."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(trainer).items()}
    text = standing.model_dump_json()
    metadata = {METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)}
    write_atomic(directory / STATE, safetensors.torch.save(tensors, metadata=metadata))


def restore_state(directory: Path, trainer: Trainer, new: Standing) -> Standing:
    """Restore the saved state of a run into a fresh trainer and return its progress; `new` if nothing is saved.

    Raises:
        BadInput: the state is damaged, or it belongs to other data or another teacher.

    """
    path = directory / STATE
    if not path.exists():
        return new
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        standing = Standing.model_validate_json(metadata[METADATA_KEY])
        if metadata[DIGEST_KEY] != _digest(metadata[METADATA_KEY], tensors):
            raise BadInput(f"{path} is damaged: its digest differs", hint=START_ANEW)
        _put(trainer, tensors)
    except (SafetensorError, KeyError, ValidationError, RuntimeError) as error:
        raise BadInput(f"{path} is damaged: {first_line(error)}", hint=START_ANEW) from None
    for what, now, then in (
        ("training data", new.training_data, standing.training_data),
        ("extra training data", new.extra_data, standing.extra_data),
        ("teacher", new.teacher, standing.teacher),
        ("start of [int8]", new.start, standing.start),
    ):
        if now != then:
            raise BadInput(f"the {what} has changed since this run began: its digest differs", hint=START_ANEW)
    trainer.divide(standing.parts)
    return standing


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Return all tensors that a step changes: weights, statistics, momentum, averages, ranges."""
    found = {f"student.{name}": tensor for name, tensor in trainer.student.state_dict().items()}
    for name, parameter in trainer.student.named_parameters():
        momentum = trainer.optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:
            found[f"momentum.{name}"] = momentum
    if trainer.average is not None:
        found |= {f"average.{name}": tensor for name, tensor in trainer.average.state_dict().items()}
    if trainer.quantised is not None:
        found |= {f"range.{name}": tensor for name, tensor in trainer.quantised.ranges.items()}
    if trainer.mean_teacher is not None:
        found |= {f"teacher.{name}": tensor for name, tensor in trainer.mean_teacher.network.state_dict().items()}
    return found


def _put(trainer: Trainer, tensors: dict[str, Tensor]) -> None:
    """Restore the tensors that `_tensors` returned."""
    parts: dict[str, dict[str, Tensor]] = {"student": {}, "momentum": {}, "average": {}, "teacher": {}, "range": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    trainer.student.load_state_dict(parts["student"])
    if trainer.average is not None:
        trainer.average.load_state_dict(parts["average"])
    for name, tensor in (trainer.quantised.ranges if trainer.quantised is not None else {}).items():
        tensor.copy_(parts["range"][name])
    if trainer.mean_teacher is not None:
        trainer.mean_teacher.network.load_state_dict(parts["teacher"])
    for name, parameter in trainer.student.named_parameters():
        if name in parts["momentum"]:
            momentum = torch.empty_like(parameter, requires_grad=False).copy_(parts["momentum"][name])
            trainer.optimiser.state[parameter]["momentum_buffer"] = momentum


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).numpy().tobytes())
    return digest.hexdigest()

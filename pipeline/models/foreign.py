"""Foreign PyTorch checkpoints, such as RobustBench's: read without executing a pickle, with keys renamed to ours."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models import Blueprint, build_network
from pipeline.models.factory import Made
from runtime.errors import BadModel, Page, first_line
from runtime.terminal.log import log

WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "params", "weights"),
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema"),
)
"""Keys under which training checkpoints keep the weights, or an average of them."""
PREFIX = re.compile(r"^((_orig_mod|module|model|net|network|ema|ema_model)\.)+")
"""Prefixes that compilation, DataParallel, averaging and wrapper modules add to every name."""
NORMALISATION = (("mu", "mean"), ("sigma", "std"))
"""RobustBench's and DeepMind's names for the mean and standard deviation in a checkpoint."""
AVERAGED = "n_averaged"
"""PyTorch's counter in a file of averaged weights."""
Normalisation = tuple[tuple[float, ...] | None, tuple[float, ...] | None]
"""Mean and standard deviation, each per channel."""
COUNTER = "num_batches_tracked"
"""A key of batch norms that is not used here; checkpoints from before PyTorch 0.4.1 lack it."""
REFUSALS = ("Unsupported global", "Unsupported class", "Trying to instantiate", "Trying to call reduce")
"""PyTorch's messages about a pickle that would run code. Those about a damaged file are different."""
LISTED = 3


def load_foreign(
    path: Path,
    blueprint: Blueprint,
    *,
    channels: int,
    classes: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    usual: Normalisation = (None, None),
) -> nn.Module:
    """Build a network and give it the weights of a PyTorch file, on the CPU, in eval mode.

    Args:
        path: a file of `torch.save`: a state_dict, also nested, prefixed, or with parts that the network does not use.
        blueprint: the network that the weights belong to.
        channels: of the data.
        classes: likewise.
        mean: per channel, if its training images were normalised; by default that of the file.
        std: likewise.
        usual: mean and std if they are neither given nor in the file; by default 0 and 1, unless the published weights
            of this architecture expect normalised images.

    Raises:
        BadModel: a damaged file, a pickle that would run code, two sets of weights, other weights, weights that are not
            dense floating-point tensors, other classes, or no sound word on the normalisation that the weights expect.

    """
    architecture = blueprint.architecture
    unused = architecture.unused
    weights = {name: tensor for name, tensor in _read(path).items() if unused is None or not name.startswith(unused)}
    recorded = [_taken(path, weights, names) for names in NORMALISATION]
    found = {
        what: next((values for values in sources if values is not None), None)
        for what, sources in (("mean", (mean, recorded[0], usual[0])), ("std", (std, recorded[1], usual[1])))
    }
    _check_normalisation(path, found)
    weights = {architecture.ours(name): tensor for name, tensor in weights.items()}
    network = build_network(
        blueprint.arch,
        channels=channels,
        classes=classes,
        width=blueprint.width,
        depth=blueprint.depth,
        factory=blueprint.factory,
        **{what: _per_channel(path, what, values, channels) for what, values in found.items()},
    )
    own_names = network
    if isinstance(network, Made):  # the file holds the inner network only, with names from which `PREFIX` was removed
        own_names = network.network
        full = {PREFIX.sub("", name): name for name in own_names.state_dict()}
        weights = {full.get(name, name): tensor for name, tensor in weights.items()}
    counters = {name: value for name, value in own_names.state_dict().items() if name.endswith(COUNTER)}
    weights = counters | weights
    _check_fits(path, blueprint, own_names.state_dict(), weights, classes)
    unknown = [what for what, values in found.items() if values is None]
    if len(unknown) == 1 or (architecture.normalised and unknown):
        raise BadModel(
            f"neither the recipe nor {path} gives the whole normalisation of its images: no {' and no '.join(unknown)}",
            hint="set teacher.mean and teacher.std as it was trained, per channel; 0 and 1 mean raw images in [0, 1]. "
            "A run that began without them must start anew",
            page=Page.TEACHERS,
        )
    own_names.load_state_dict(weights)
    return network.eval()


def _taken(path: Path, weights: dict[str, Tensor], names: Iterable[str]) -> tuple[float, ...] | None:
    """Remove a normalisation from the weights, under any of its names, and return it."""
    given = {name: weights.pop(name) for name in names if name in weights}
    _refuse_unreadable(path, [name for name, tensor in given.items() if not _is_plain(tensor)], given)
    found = {name: tuple(tensor.flatten().tolist()) for name, tensor in given.items()}
    for one, other in pairwise(found):
        if found[one] != found[other]:
            raise _ambiguous(path, one, other)
    return next(iter(found.values()), None)


def _check_normalisation(path: Path, found: Mapping[str, tuple[float, ...] | None]) -> None:
    """Raise `BadModel` unless all numbers are finite, and standard deviations above 0."""
    for what, values in found.items():
        wrong = [value for value in values or () if not math.isfinite(value) or (what == "std" and value <= 0)]
        if wrong:
            raise BadModel(
                f"{path}: the {what} of its images has {wrong[0]:g}",
                hint="set teacher.mean and teacher.std as it was trained, per channel",
            )


def refuse_web_page(path: Path) -> None:
    """Raise `BadModel` if a download site sent HTML instead of a checkpoint."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.lstrip().startswith(b"<"):
        raise BadModel(
            f"{path} is a web page, not a checkpoint",
            hint="the site sent its quota or consent page: download the file in a browser",
        )


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without wrappers and prefixes; see `load_foreign`."""
    again = "download it again, and compare its size with what the site says"
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(refusal in str(error) for refusal in REFUSALS):
            raise BadModel(f"{path} is damaged, or no PyTorch checkpoint", hint=again) from None
        raise BadModel(
            f"{path} holds more than weights, and reading it could run code",
            hint="if you trust it, load it and save only its weights: torch.save(model.state_dict(), FILE)",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise BadModel(f"{path} is damaged, or no PyTorch checkpoint: {first_line(error)}", hint=again) from None
    found: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    content = _unwrapped(path, content)
    for name, tensor in content.items():
        plain = PREFIX.sub("", str(name))
        if not isinstance(tensor, Tensor) or plain == AVERAGED:
            continue
        if plain in found and not torch.equal(found[plain], tensor):
            raise _ambiguous(path, names[plain], str(name))
        found[plain], names[plain] = tensor, str(name)
    if not found:
        raise BadModel(
            f"{path} holds no weights by name; its keys are {_listed(map(str, content)) or 'none'}",
            hint="save them with torch.save(model.state_dict(), FILE)",
        )
    return found


def _unwrapped(path: Path, content: Any) -> Mapping[Any, Any]:
    """Return the contents under the keys of `WRAPPERS`, at any depth, and log which were used.

    Raises:
        BadModel: two of these keys hold different weights.

    """
    taken: list[str] = []
    while isinstance(content, Mapping):
        inner = {key: content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)}
        if not inner:
            break
        first, *others = inner
        for other in others:
            if not _same(inner[first], inner[other]):
                raise _ambiguous(path, *(".".join([*taken, key]) for key in (first, other)))
        taken.append(first)
        content = inner[first]
    if taken:
        log.info(f"{path}: loading the weights under {'.'.join(taken)}")
    return content if isinstance(content, Mapping) else {}


def _same(one: Any, other: Any) -> bool:
    """Return whether two contents are equal, tensor by tensor; values that are not tensors are ignored."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return not isinstance(one, Mapping | Tensor) and not isinstance(other, Mapping | Tensor)


def _ambiguous(path: Path, one: str, other: str) -> BadModel:
    return BadModel(
        f"{path} holds weights under {one} and different ones under {other}",
        hint="load the file and save only the weights that you mean: torch.save(WEIGHTS, FILE)",
    )


def _is_plain(tensor: Tensor, own: Tensor | None = None) -> bool:
    """Return whether a tensor of the file can be copied into `own`, by default floats, without loss of its meaning."""
    stored = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
    return stored and (tensor.is_floating_point() or (own is not None and not own.is_floating_point()))


def _refuse_unreadable(path: Path, odd: Sequence[str], weights: Mapping[str, Tensor]) -> None:
    if odd:
        first = weights[odd[0]]
        raise BadModel(
            f"{path}: not stored as dense floating-point numbers: {_listed(odd)} ({first.dtype}, {first.layout}, "
            f"{first.device})",
            hint="save them as dense float32 tensors",
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _per_channel(path: Path, what: str, values: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    if values is not None and len(values) != channels:
        raise BadModel(f"{path}: teacher.{what} has {len(values)} values, but the images have {channels} channels")
    return values


def _check_fits(
    path: Path, blueprint: Blueprint, own: Mapping[str, Tensor], weights: Mapping[str, Tensor], classes: int
) -> None:
    """Raise `BadModel`, with a hint, unless the weights have the names and shapes of the network."""
    architecture = blueprint.architecture
    head = weights.get(f"{architecture.head}.weight")
    odd = [name for name, tensor in weights.items() if name in own and not _is_plain(tensor, own[name])]
    _refuse_unreadable(path, odd, weights)
    different = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    surplus = [name for name in weights if name not in own]
    if not different and not surplus:
        return
    if head is not None and not surplus and all(name.startswith(f"{architecture.head}.") for name in different):
        raise BadModel(
            f"{path} has {len(head)} classes, but the data has {classes}", hint="use a teacher for this data"
        )
    what = f"network of {blueprint.factory}"
    if blueprint.arch:
        what = f"{blueprint.arch} of width {blueprint.width:g}"
        what += f" and depth {blueprint.depth}" if blueprint.depth else ""
    lacks, brings = map(_listed, (different, surplus))
    said = architecture.measure(weights) if architecture.measure else "other networks keep other names"
    raise BadModel(
        f"{path} is no {what}: "
        + "; ".join(part for part in (lacks and f"{lacks} differ", brings and f"{brings} are not its own") if part),
        hint=f"{said}; teacher.arch, width and depth, or teacher.factory, say what to expect",
    )

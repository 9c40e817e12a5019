"""The request to `pack`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from export.precision.table import Choice
from runtime.spec import LONGEST_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.options.preparers import Wanted
    from runtime.spec import ThreatModel


@dataclass(frozen=True)
class Label:
    """The name and version of a bundle.

    Args:
        name: of the model, a `runtime.spec.Name`; made of the file's by default.
        version: of the bundle, rising.

    """

    name: str | None = None
    version: int = 1


@dataclass(frozen=True)
class Order:
    """What to pack, and how.

    Args:
        path: the ONNX file.
        wanted: images, classes, layout, size, normalisation, and whether to make a gradient graph.
        threat_model: the attacks against which the model is judged.
        label: names and version.
        choice: the precisions; by default the one in which the model computes.
        calibration: the images of int8, as `runtime.images.find.find_images` takes them, less those
            that are judged.

    """

    path: Path
    wanted: Wanted
    threat_model: ThreatModel
    label: Label = field(default_factory=Label)
    choice: Choice = field(default_factory=Choice)
    calibration: str | None = None


def name_of(path: Path) -> str:
    """Return a model name from a file's: characters other than letters, digits, '.', '_' and '-' become '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:LONGEST_NAME] or "model"

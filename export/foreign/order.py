"""What `pack` is asked for."""

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
    """What a bundle is called.

    Args:
        name: of the model, a `runtime.spec.Name`; made of the file's by default.
        version: of the bundle, rising.

    """

    name: str | None = None
    version: int = 1


@dataclass(frozen=True)
class Order:
    """What is to be packed, and how.

    Args:
        path: the ONNX file.
        wanted: images, classes, layout, size, normalisation, and whether a gradient graph is wanted.
        threat_model: what the model is judged against.
        label: names and version.
        choice: of precisions; by default the one that the model computes in.
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
    """Return the name of a file as a model may be called: what is no letter, digit, '.', '_' or '-' becomes '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:LONGEST_NAME] or "model"

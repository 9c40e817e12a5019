"""Turns the arguments of a call into the records of the command line, so that both run the same code."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeproof.arguments import existing, filled, names
from edgeproof.arrays import image_set
from runtime.backends.table import check_precision
from runtime.bundle.opening import Bundle
from runtime.bundle.signing import load_trust
from runtime.commands.subjects import open_artifact, open_subject
from runtime.errors import EdgeproofError, UsageFault
from runtime.options.engine import EngineOptions
from runtime.options.preparers import ModelOptions
from runtime.spec import ThreatModel
from runtime.verdict.options import VerifyOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.images.image_set import ImageSet, Layout
    from runtime.session import Session
    from runtime.verdict.subject import Subject

MODEL, IMAGES, CLASSES, BUNDLE = "model.onnx", "images.npz", "classes.txt", "bundle"


@dataclass(frozen=True)
class Given:
    """A model and images as the caller passes them; see `edgeproof.verify`."""

    model: Any
    x: Any = None
    y: Any = None
    layout: Layout | None = None
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the type of the model.

        Raises:
            UsageFault: it is not one of the types that `edgeproof.verify` takes.

        """
        if not (self.is_network or isinstance(self.model, (str, PathLike, bytes, Bundle))):
            kind = self.model.__name__ if isinstance(self.model, type) else type(self.model).__name__
            raise UsageFault(
                f"model is {'the class' if isinstance(self.model, type) else 'of type'} {kind}",
                hint="give a bundle, a path, the bytes of an ONNX file, or a PyTorch network (an nn.Module)",
            )

    def images(self) -> ImageSet:
        """Return the images and labels as a set. Raises the same errors as `edgeproof.arrays.image_set`."""
        return image_set(self.x, self.y, name=Path(IMAGES).stem, argument="x, y", layout=self.layout)

    @property
    def is_network(self) -> bool:
        """Whether the model is a PyTorch network. This works without PyTorch too."""
        return hasattr(self.model, "state_dict") and not isinstance(self.model, type)


@dataclass(frozen=True)
class Asked:
    """The model and the images, on disk and opened, and the options of the call."""

    artifact: Path
    opened: Bundle
    engine: EngineOptions
    model: ModelOptions
    options: VerifyOptions
    claims: bool
    """Whether the bundle's claim holds for the run. A network in memory claims nothing, like an ONNX file."""

    def subject(self, keep: Callable[[Session], Session]) -> Subject:
        """Open the model that is judged. `keep` gets and returns every session; the caller closes them later."""
        subject = open_subject(self.artifact, None, self.opened, self.model, self.options, None, keep, self.engine)
        return subject if self.claims else replace(subject, claimed_images=None)


def what_is_asked(
    given: Given,
    scratch: Path,
    trust: str | PathLike[str] | None,
    engine: Mapping[str, Any],
    model: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Asked:
    """Write the model and the images to disk if they are not there yet, and open them; None means the default.

    Raises:
        UsageFault: the command line would not take a setting, several precisions are named, or images come without
            labels.
        EdgeproofError: see `open_artifact`.

    """
    engines = filled(EngineOptions, engine).with_provider()
    if engines.several:
        raise UsageFault("a verdict is of one precision, and several are named", hint="call verify for each of them")
    packing, asked = filled(ModelOptions, model), filled(VerifyOptions, {**options, **_images(given, scratch)})
    asked = asked if engines.uses_gradient else asked.gradient_free()
    artifact = _artifact(given, scratch, asked)
    opened = open_artifact(
        artifact, engines, packing, asked, load_trust(existing(trust, "trust")) if trust is not None else None
    )
    (engines,) = engines.each(opened.manifest.ships)
    check_precision(opened, engines.precision or "")
    return Asked(artifact, opened, engines, packing, asked, claims=not given.is_network)


def _images(given: Given, scratch: Path) -> dict[str, Any]:
    """Write images and classes to files, and return the options that name them."""
    named: dict[str, Any] = {}
    if (given.x is None) != (given.y is None):
        raise UsageFault("images and labels come together: x and y", hint="verify(model, x, y)")
    if given.x is not None and not given.is_network:  # the bundle of a network contains them
        images = given.images()
        np.savez(scratch / IMAGES, x=images.images, y=images.labels)
        named |= {"data": str(scratch / IMAGES), "layout": "nchw"}
    if names(given.classes):
        (scratch / CLASSES).write_text("\n".join(given.classes))
        named["classes"] = str(scratch / CLASSES)
    return named


def _artifact(given: Given, scratch: Path, options: VerifyOptions) -> Path:
    """Return the path of the model. Bytes and a network are written into `scratch` first."""
    if isinstance(given.model, bytes):
        (scratch / MODEL).write_bytes(given.model)
        return scratch / MODEL
    if given.is_network:
        from edgeproof.exporting import write_network

        if given.x is None:
            raise UsageFault("a network brings no images", hint="give them: verify(network, x, y)")
        threat_model = options.threat_model_or(ThreatModel())
        out, classes = scratch / BUNDLE, names(given.classes)
        write_network(given.model, given.images(), out=out, threat_model=threat_model, classes=classes)
        return out
    path = given.model.path if isinstance(given.model, Bundle) else Path(given.model)
    if not path.exists():
        raise UsageFault(
            f"there is no bundle and no model at {path}", hint="give the path of a bundle or of an ONNX file"
        )
    if path.is_file() and given.x is None:
        raise UsageFault(f"{path} brings no images", hint="verify(model, x, y)")
    return path


@contextmanager
def scratch_directory() -> Iterator[tuple[Path, Callable[[object], object]]]:
    """Yield a temporary directory, and a function that keeps it for the lifetime of an object instead of the block."""
    place = Path(tempfile.mkdtemp(prefix="edgeproof-"))
    owners: list[object] = []

    def keep_for(owner: object) -> None:
        owners.append(owner)
        weakref.finalize(owner, shutil.rmtree, place, ignore_errors=True)

    try:
        yield place, keep_for
    except EdgeproofError as error:  # the caller knows no file there
        error.message = error.message.replace(f"{place}/", "")
        raise
    finally:
        if not owners:
            shutil.rmtree(place, ignore_errors=True)

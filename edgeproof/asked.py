"""What a call from Python asks, in the records of the command line: one way to a verdict, whoever asks."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import ValidationError

from edgeproof.arrays import as_numpy
from runtime.backends.table import check_precision
from runtime.bundle.signing import load_trust
from runtime.commands.subjects import open_artifact, open_subject
from runtime.errors import UsageFault
from runtime.options.engine import EngineOptions
from runtime.options.preparers import ModelOptions
from runtime.spec import Frozen, ThreatModel
from runtime.verdict.options import VerifyOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from os import PathLike

    from runtime.bundle.opening import Bundle
    from runtime.images.image_set import Layout
    from runtime.session import Session
    from runtime.verdict.subject import Subject

Record = TypeVar("Record", bound=Frozen)
MODEL, IMAGES, CLASSES, BUNDLE = "model.onnx", "images.npz", "classes.txt", "bundle"


@dataclass(frozen=True)
class Given:
    """A model and images as a caller has them: see `edgeproof.verify`."""

    model: Any
    x: Any = None
    y: Any = None
    layout: Layout | None = None
    classes: Sequence[str] = ()

    @property
    def is_network(self) -> bool:
        """Whether the model is a PyTorch network; PyTorch may not be installed."""
        return hasattr(self.model, "state_dict")


@dataclass(frozen=True)
class Asked:
    """The same on disk and opened, with what is asked of it."""

    artifact: Path
    opened: Bundle
    engine: EngineOptions
    model: ModelOptions
    options: VerifyOptions

    def subject(self, keep: Callable[[Session], Session]) -> Subject:
        """Open what is judged; `keep` is handed every session, to close it, and returns it."""
        return open_subject(self.artifact, None, self.opened, self.model, self.options, None, keep, self.engine)


def what_is_asked(
    given: Given,
    scratch: Path,
    trust: str | PathLike[str] | None,
    engine: Mapping[str, Any],
    model: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Asked:
    """Put what is given on disk where it is not, and open it; settings that are None are the records' own.

    Raises:
        UsageFault: a setting is none that the command line would take, several precisions are named, or images come
            without labels.
        EdgeproofError: see `open_artifact`.

    """
    engines = filled(EngineOptions, engine).with_provider()
    if engines.several:
        raise UsageFault("a verdict is of one precision, and several are named", hint="call verify once for each")
    packing, asked = filled(ModelOptions, model), filled(VerifyOptions, {**options, **_images(given, scratch)})
    asked = asked if engines.uses_gradient else asked.gradient_free()
    artifact = _artifact(given, scratch, asked)
    opened = open_artifact(artifact, engines, packing, asked, load_trust(Path(trust)) if trust is not None else None)
    (engines,) = engines.each(opened.manifest.ships)
    check_precision(opened, engines.precision or "")
    return Asked(artifact, opened, engines, packing, asked)


def filled(record: type[Record], settings: Mapping[str, Any]) -> Record:
    """Return a record of settings; those that are None are left at its own.

    Raises:
        UsageFault: one is unknown, or out of range.

    """
    try:
        return record(**{name: value for name, value in settings.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageFault(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _images(given: Given, scratch: Path) -> dict[str, Any]:
    """Return what names the images and classes that are given, which lie in files then."""
    named: dict[str, Any] = {}
    if (given.x is None) != (given.y is None):
        raise UsageFault("images and labels come together: x and y")
    if given.x is not None and not given.is_network:  # of a network the bundle has them
        np.savez(scratch / IMAGES, x=as_numpy(given.x), y=as_numpy(given.y))
        named |= {"data": str(scratch / IMAGES), "layout": given.layout}
    if given.classes:
        (scratch / CLASSES).write_text("\n".join(given.classes))
        named["classes"] = str(scratch / CLASSES)
    return named


def _artifact(given: Given, scratch: Path, options: VerifyOptions) -> Path:
    """Return where the model lies; bytes and a network are put into `scratch`."""
    if isinstance(given.model, bytes):
        (scratch / MODEL).write_bytes(given.model)
        return scratch / MODEL
    if given.is_network:
        from edgeproof.exporting import export

        if given.x is None:
            raise UsageFault("a network brings no images", hint="verify(network, x, y)")
        eps = options.threat_model_or(ThreatModel()).eps
        export(
            given.model,
            evaluation=(given.x, given.y),
            layout=given.layout,
            classes=given.classes,
            out=scratch / BUNDLE,
            eps=eps,
        )
        return scratch / BUNDLE
    path = Path(given.model)
    if not path.exists():
        raise UsageFault(f"there is no bundle and no model at {path}")
    return path


@contextmanager
def scratch_directory() -> Iterator[tuple[Path, Callable[[object], object]]]:
    """Yield a temporary directory, and what makes it last as long as an object; else it goes with the block."""
    place = Path(tempfile.mkdtemp(prefix="edgeproof-"))
    owners: list[object] = []

    def keep_for(owner: object) -> None:
        owners.append(owner)
        weakref.finalize(owner, shutil.rmtree, place, ignore_errors=True)

    try:
        yield place, keep_for
    finally:
        if not owners:
            shutil.rmtree(place, ignore_errors=True)

"""A bundle: a directory whose manifest lists every file; nothing is used before every byte is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from runtime.errors import BadBundle
from runtime.files import sha256
from runtime.spec import Frozen, Gate, ThreatModel, to_json

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
EVALUATION = "evaluation.npz"
REFERENCE = "reference.npz"
COPY_AGAIN = "copy the bundle again, as a whole"
OTHER_MAKE = "the bundle is damaged, or made by another version"


def _plain_name(name: str) -> str:
    """Accept a file directly inside the bundle, nothing that climbs out of it or hides."""
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name or name == MANIFEST:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Frozen):
    """Digest and size in bytes of one file."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class InputShape(Frozen):
    """One image: float32 [channels, height, width] in [0, 1], fed as `input` with a batch axis before."""

    channels: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]


class Parity(Frozen):
    """How far the exported graph may be, and was, from the training framework on the evaluation set."""

    max_logit_error: float
    max_logit_error_limit: float
    prediction_agreement: float
    prediction_agreement_limit: float
    median_gradient_error: float
    median_gradient_error_limit: float


class Graph(Frozen):
    """The files of one precision: the classifier, and the graph of its input gradient."""

    forward: FileName
    gradient: FileName | None
    opset: int
    parity: Parity | None = None


class DataRecord(Frozen):
    """The images that a figure is measured on."""

    name: str
    n: Annotated[int, Field(gt=0)]
    sha256: Digest


class Reference(Frozen):
    """What training measured on its own hold-out images, for the checkpoint exported: fractions of n."""

    checkpoint: str
    n: int
    clean: float
    pgd: float


class Provenance(Frozen):
    """Where the artifact comes from. Digests are of file contents; the recipe is the resolved one."""

    recipe: dict[str, Any]
    recipe_sha256: Digest
    checkpoint_sha256: Digest
    teacher_sha256: Digest | None
    training_data: DataRecord
    software: dict[str, str]


class Manifest(Frozen):
    """manifest.json: what is in the bundle and what is claimed of it."""

    schema_: Literal["edgeproof.bundle/1"] = Field(alias="schema", default="edgeproof.bundle/1")
    name: str
    version: Annotated[int, Field(ge=1)] = 1
    created: str
    input: InputShape
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    threat_model: ThreatModel
    ships: str
    graphs: dict[str, Graph]
    evaluation: DataRecord
    gate: Gate = Gate()
    reference: Reference | None = None
    provenance: Provenance | None = None
    files: dict[FileName, FileEntry]

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json: sorted, indented, one newline at the end."""
        return to_json(self)


class Bundle:
    """An opened bundle: the manifest, and the bytes of every file it lists, checked against their digests."""

    def __init__(self, path: Path, manifest: Manifest, contents: dict[str, bytes]) -> None:
        self.path = path
        self.manifest = manifest
        self._contents = contents

    def read(self, name: str) -> bytes:
        """Return the checked bytes of one listed file."""
        return self._contents[name]

    def take(self, name: str) -> bytes:
        """Return the checked bytes of one listed file, and keep them no longer."""
        return self._contents.pop(name)


def open_bundle(path: Path) -> Bundle:
    """Read a bundle and check the size and digest of every file before any of them is parsed.

    Raises:
        BadBundle: no manifest, a manifest that does not validate, a file that is missing, unlisted, a link,
            or whose size or digest differs.

    """
    if not (path / MANIFEST).is_file():
        raise BadBundle(f"{path} is not a bundle: it has no {MANIFEST}", hint="make one with `edgeproof export RUN`")
    raw = (path / MANIFEST).read_bytes()
    manifest = _parse(path, raw)
    present = {entry.name for entry in path.iterdir()} - {MANIFEST}
    for name in sorted(present ^ set(manifest.files)):
        state = "is not listed in the manifest" if name in present else "is listed in the manifest but missing"
        raise BadBundle(f"{path}: {name} {state}", hint="remove it" if name.startswith(".") else COPY_AGAIN)
    return Bundle(path, manifest, {name: _checked(path / name, entry) for name, entry in manifest.files.items()})


def _parse(path: Path, raw: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise BadBundle(f"{path / MANIFEST}: {where}: {first['msg']}", hint=OTHER_MAKE) from None
    named = {name for graph in manifest.graphs.values() for name in (graph.forward, graph.gradient) if name}
    for name in sorted((named | {EVALUATION}) - set(manifest.files)):
        raise BadBundle(f"{path / MANIFEST}: {name} is used but not listed under files", hint=OTHER_MAKE)
    if manifest.ships not in manifest.graphs:
        raise BadBundle(f"{path / MANIFEST}: ships {manifest.ships!r}, which is not among its graphs", hint=OTHER_MAKE)
    return manifest


def _checked(path: Path, entry: FileEntry) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise BadBundle(f"{path} is not a plain file", hint=COPY_AGAIN)
    if path.stat().st_size != entry.size:
        raise BadBundle(f"{path} has {path.stat().st_size} bytes, the manifest says {entry.size}", hint=COPY_AGAIN)
    data = path.read_bytes()
    if sha256(data) != entry.sha256:
        raise BadBundle(f"{path}: its digest differs from the manifest's", hint=COPY_AGAIN)
    return data

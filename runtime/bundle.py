"""A bundle: a directory whose manifest lists every file; nothing is used before every byte is checked."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from runtime.copies import LARGE, Copy, copied
from runtime.errors import BadBundle, BadSignature
from runtime.graph_scan import refuse_outside_data
from runtime.signing import SIGN_AGAIN, SIGNATURE, Trust, authenticate
from runtime.spec import Frozen, Gate, Name, ThreatModel, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST = "manifest.json"
EVALUATION = "evaluation.npz"
REFERENCE = "reference.npz"
COPY_AGAIN = "copy the bundle again, as a whole"
OTHER_MAKE = "the bundle is damaged, or made by another version"
LARGEST = 16 * 2**20
"""Bytes of a manifest or signature: what is read before anything says how much there should be."""
NO_FILE = {errno.ELOOP: "is a link", errno.ENXIO: "is not a plain file", errno.ENOENT: "is missing"}
"""Why a file could not be opened as one, by the number of the error."""


def _plain_name(name: str) -> str:
    """Accept a file directly inside the bundle, nothing that climbs out of it or hides."""
    if name.startswith(("/", "\\")):
        raise ValueError(f"{name!r} is an absolute path")
    if ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f"{name!r} climbs out of the bundle")
    if not name or name.startswith(".") or any(sign in name for sign in "/\\") or not name.isprintable():
        raise ValueError(f"{name!r} is not a plain file name")
    if name in (MANIFEST, SIGNATURE):
        raise ValueError(f"{name} cannot list itself or its signature")
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
    """How far the graph may be, and was, from what it was made of, on evaluation images.

    That is the training framework; for a packed model the file it came as, which has no gradient to compare.
    """

    max_logit_error: float
    max_logit_error_limit: float
    prediction_agreement: float
    prediction_agreement_limit: float
    median_gradient_error: float | None = None
    median_gradient_error_limit: float | None = None


class DataRecord(Frozen):
    """The images that a figure is measured on, or that a graph is made with."""

    name: str
    n: Annotated[int, Field(gt=0)]
    sha256: Digest


class Calibrated(Frozen):
    """What set the ranges of a quantised graph, and which of its nodes were left in float16."""

    data: DataRecord
    method: str
    kept_fp16: tuple[str, ...] = ()


class Graph(Frozen):
    """The files of one precision: the classifier, and the graph of its input gradient."""

    forward: FileName
    gradient: FileName | None
    opset: int
    parity: Parity | None = None
    calibration: Calibrated | None = None


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


class Packed(Frozen):
    """The ONNX file that a bundle was packed from, and everything that was done to its graph, in words."""

    file: str
    sha256: Digest
    opset: int
    changes: tuple[str, ...]


class Manifest(Frozen):
    """manifest.json: what is in the bundle and what is claimed of it."""

    schema_: Literal["edgeproof.bundle/1"] = Field(alias="schema", default="edgeproof.bundle/1")
    name: Name
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
    packed: Packed | None = None
    files: dict[FileName, FileEntry]

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json: sorted, indented, one newline at the end."""
        return to_json(self)


class Bundle:
    """An opened bundle: the manifest, and a copy of every file, checked against its digest.

    Args:
        path: where it lies.
        manifest: parsed.
        contents: a copy of every file, manifest.json and signature.json too, by name.
        signed_by: the fingerprint of the trusted key whose signature holds; None where none was asked for.

    """

    def __init__(self, path: Path, manifest: Manifest, contents: dict[str, Copy], signed_by: str | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.contents = contents
        self.signed_by = signed_by

    def read(self, name: str) -> bytes:
        """Return the checked bytes of one file."""
        return self.contents[name].read()

    def take(self, name: str) -> Copy:
        """Return the checked copy of one file, and keep it no longer."""
        return self.contents.pop(name)


def open_bundle(path: Path, trust: Trust | None = None) -> Bundle:
    """Read a bundle, and check signature, size and digest of every file before any of them is parsed.

    Of a bundle that fails only signature.json (under `trust`) and manifest.json have been parsed.

    Args:
        path: the directory.
        trust: the keys, one of which must have signed it. None: a signature is neither needed nor checked.

    Raises:
        BadSignature: under `trust`, it is unsigned, or its signature does not hold or is not of these files.
        BadBundle: no manifest, a manifest that does not validate, a file that is missing, unlisted, a link,
            or whose size or digest differs.
        BadModel: a graph refers to data outside the bundle.

    """
    present = _listing(path)
    if MANIFEST not in present:
        raise BadBundle(
            f"{path} is not a bundle: it has no {MANIFEST}", hint="make one with `edgeproof export` or `edgeproof pack`"
        )
    alone = {name: _read(path / name, LARGEST) for name in (MANIFEST, SIGNATURE) if name in present}
    signed = None
    if trust is not None:
        if SIGNATURE not in alone:
            raise BadSignature(f"{path} is not signed: it has no {SIGNATURE}", hint="export it with --key PRIVATE.pem")
        signed = authenticate(path / SIGNATURE, alone[SIGNATURE].read(), trust)
        if signed.digests.get(MANIFEST) != alone[MANIFEST].sha256:
            raise BadSignature(f"{path / MANIFEST} is not the one that was signed", hint=SIGN_AGAIN)
    manifest = _parse(path, alone[MANIFEST].read())
    if signed and {name: entry.sha256 for name, entry in manifest.files.items()} != _without_manifest(signed.digests):
        raise BadSignature(f"{path}: signature and manifest list different files", hint=SIGN_AGAIN)
    for name in sorted((present - set(alone)) ^ set(manifest.files)):
        state = "is not listed in the manifest" if name in present else "is listed in the manifest but missing"
        raise BadBundle(f"{path}: {name} {state}", hint="remove it" if name in present else COPY_AGAIN)
    contents = {name: _checked(path, name, manifest.files) for name in manifest.files}
    for graph in manifest.graphs.values():
        for name in filter(None, (graph.forward, graph.gradient)):
            refuse_outside_data(str(path / name), contents[name].read())
    return Bundle(path, manifest, {**contents, **alone}, signed.key if signed else None)


def _listing(path: Path) -> set[str]:
    try:
        return {entry.name for entry in path.iterdir()}
    except NotADirectoryError:
        raise BadBundle(f"{path} is not a bundle: it is a file", hint="a bundle is a directory") from None


def _without_manifest(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if name != MANIFEST}


def _parse(path: Path, raw: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        faults = error.errors()
        first = next((fault for fault in faults if fault["loc"] == ("schema",)), faults[0])
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise BadBundle(f"{path / MANIFEST}: {where}: {first['msg']}", hint=OTHER_MAKE) from None
    if "schema_" not in manifest.model_fields_set:
        raise BadBundle(f"{path / MANIFEST}: schema: it names none", hint=OTHER_MAKE)
    named = {name for graph in manifest.graphs.values() for name in (graph.forward, graph.gradient) if name}
    for name in sorted((named | {EVALUATION}) - set(manifest.files)):
        raise BadBundle(f"{path / MANIFEST}: {name} is used but not listed under files", hint=OTHER_MAKE)
    if manifest.ships not in manifest.graphs:
        raise BadBundle(f"{path / MANIFEST}: ships {manifest.ships!r}, which is not among its graphs", hint=OTHER_MAKE)
    return manifest


def _checked(path: Path, name: str, files: Mapping[str, FileEntry]) -> Copy:
    """Return a copy of one file; it must have the size and the digest of its entry."""
    entry = files[name]
    copy = _read(path / name, max(file.size for file in files.values()))
    if copy.sha256 == entry.sha256 and copy.size == entry.size:
        return copy
    for other, its in files.items():
        if copy.sha256 == its.sha256 != entry.sha256:
            raise BadBundle(f"{path / name} holds what belongs in {other}: files were swapped", hint=COPY_AGAIN)
    if copy.size != entry.size:
        raise BadBundle(f"{path / name} has {copy.size} bytes, the manifest says {entry.size}", hint=COPY_AGAIN)
    raise BadBundle(f"{path / name}: its digest differs from the manifest's", hint=COPY_AGAIN)


def _read(path: Path, at_most: int) -> Copy:
    """Copy a plain file, which is opened once: no link is followed, no pipe waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise BadBundle(f"{path} {NO_FILE[error.errno]}", hint=COPY_AGAIN) from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size > at_most:
        os.close(handle)
        regular = stat.S_ISREG(status.st_mode)
        what = f"has {status.st_size} bytes, more than {at_most}" if regular else "is not a plain file"
        raise BadBundle(f"{path} {what}", hint=COPY_AGAIN)
    with os.fdopen(handle, "rb") as file:
        return copied(file, at_most, large=status.st_size >= LARGE)

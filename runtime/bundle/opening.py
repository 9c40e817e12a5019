"""Opens a bundle, a directory whose manifest lists every file. Every byte is checked before anything is used."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from runtime.bundle.manifest import EVALUATION, MANIFEST, OTHER_MAKE, SIGNATURE, FileEntry, Manifest
from runtime.bundle.signing import SIGN_AGAIN, Trust, authenticate
from runtime.errors import BadBundle, BadSignature
from runtime.files import open_plain
from runtime.graph.facts import graph_facts
from runtime.graph.scan import refuse_outside_data
from runtime.images.unlinked_file import LARGE, Copy, copied
from runtime.records.report import REPORT
from runtime.spec import first_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Content = TypeVar("Content")
COPY_AGAIN = "copy the bundle again, as a whole"
LARGEST = 16 * 2**20
"""The most bytes of a manifest or signature, which are read before their size is known."""
NO_FILE = {errno.ELOOP: "is a link", errno.ENXIO: "is not a plain file", errno.ENOENT: "is missing"}
"""Why a file could not be opened as a plain file, by error number."""


class Bundle:
    """An opened bundle: the manifest, and a copy of every file, checked against its digest.

    Args:
        path: the bundle's directory.
        manifest: the parsed manifest.
        contents: a copy of every file by name, including manifest.json and signature.json.
        signed_by: the fingerprint of the trusted key that signed it; None if that was not checked.

    """

    def __init__(self, path: Path, manifest: Manifest, contents: dict[str, Copy], signed_by: str | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.contents = contents
        self.signed_by = signed_by
        self._made: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Bundle {self.manifest.name}: {', '.join(self.manifest.graphs)}, at {self.path}>"

    def read(self, name: str) -> bytes:
        """Return the checked bytes of one file."""
        return self.contents[name].read()

    def read_once(self, name: str, read: Callable[[Copy], Content]) -> Content:
        """Return what `read` makes of the checked copy of one file; keep the result and drop the copy."""
        if name not in self._made:
            self._made[name] = read(self.contents[name])
            del self.contents[name]
        made: Content = self._made[name]
        return made


def open_bundle(path: Path, trust: Trust | None = None) -> Bundle:
    """Read a bundle, and check the signature and the size and digest of every file before any of them is parsed.

    If a check fails, only signature.json (with `trust`) and manifest.json were parsed.

    Args:
        path: the directory.
        trust: the keys of which one must have signed it. None: a signature is neither needed nor checked.

    Raises:
        BadSignature: with `trust`, the bundle is unsigned, or its signature is not valid for these files.
        BadBundle: the manifest is missing or not valid; a file is missing, not listed, a link, or of another size or
            digest; or a graph has another precision than the manifest says.
        BadModel: a graph refers to data outside the bundle, or is not an ONNX graph.

    """
    present = _listing(path)
    if MANIFEST not in present:
        hint = "make one with `edgeproof export` or `edgeproof pack`"
        if REPORT in present:
            hint = "it holds a report, which `edgeproof report` shows"
        raise BadBundle(f"{path} is not a bundle: it has no {MANIFEST}", hint=hint)
    alone = {name: _read(path / name, LARGEST) for name in (MANIFEST, SIGNATURE) if name in present}
    signed = None
    if trust is not None:
        if SIGNATURE not in alone:
            raise BadSignature(f"{path} is not signed: it has no {SIGNATURE}", hint="sign it with `edgeproof sign`")
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
    for precision, graph in manifest.graphs.items():
        for name in filter(None, (graph.forward, graph.gradient)):
            refuse_outside_data(str(path / name), contents[name].read())
        _refuse_another_precision(path / graph.forward, contents[graph.forward].read(), precision)
    return Bundle(path, manifest, {**contents, **alone}, signed.key if signed else None)


def _listing(path: Path) -> set[str]:
    try:
        return {entry.name for entry in path.iterdir()}
    except NotADirectoryError:
        raise BadBundle(
            f"{path} is not a bundle: it is a file",
            hint="a bundle is a directory; `edgeproof pack MODEL.onnx --data SET` makes one of a model",
        ) from None


def _without_manifest(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if name != MANIFEST}


def _parse(path: Path, raw: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise BadBundle(f"{path / MANIFEST}: {first_fault(error)}", hint=OTHER_MAKE) from None
    if "schema_" not in manifest.model_fields_set:
        raise BadBundle(f"{path / MANIFEST}: schema: it names none", hint=OTHER_MAKE)
    named = {name for graph in manifest.graphs.values() for name in (graph.forward, graph.gradient) if name}
    for name in sorted((named | {EVALUATION}) - set(manifest.files)):
        raise BadBundle(f"{path / MANIFEST}: {name} is used but not listed under files", hint=OTHER_MAKE)
    if manifest.ships not in manifest.graphs:
        raise BadBundle(f"{path / MANIFEST}: ships {manifest.ships!r}, which is not among its graphs", hint=OTHER_MAKE)
    return manifest


def _refuse_another_precision(path: Path, graph: bytes, called: str) -> None:
    """Raise `BadBundle` if a graph does not have the precision that the manifest names."""
    facts = graph_facts(graph)
    if facts.precision != called:
        does = "quantises" if facts.quantised else f"quantises nothing and computes in {facts.computes_in}"
        raise BadBundle(
            f"{path} is called {called} in the manifest, but it {does}: it is {facts.precision}", hint=OTHER_MAKE
        )


def _checked(path: Path, name: str, files: Mapping[str, FileEntry]) -> Copy:
    """Return a copy of one file, after checking its size and digest against its entry."""
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
    """Copy a plain file, which is opened once. It follows no link and waits for no pipe."""
    try:
        handle, status = open_plain(path)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise BadBundle(f"{path} {NO_FILE[error.errno]}", hint=COPY_AGAIN) from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > at_most:
        os.close(handle)
        regular = stat.S_ISREG(status.st_mode)
        what = f"has {status.st_size} bytes, more than {at_most}" if regular else "is not a plain file"
        raise BadBundle(f"{path} {what}", hint=COPY_AGAIN)
    with os.fdopen(handle, "rb") as file:
        return copied(file, at_most, large=status.st_size >= LARGE)

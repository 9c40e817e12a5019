"""Stores TensorRT engines on disk, each under a key of everything that determines it. A device loads only its own ones.

DIR/DIGEST.engine   the serialised engine; DIGEST is that of its EngineKey
DIR/DIGEST.json     its Sidecar
DIR/timings-DIGEST  TensorRT's timings of kernels, which make the next build faster

An engine is executable code: the directory and the files must belong to the user alone.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from runtime.errors import EngineFault, MissingEnvironment
from runtime.files import open_plain, sha256, write_atomic
from runtime.interrupt import defer_signals
from runtime.locks import wait_for_lock
from runtime.spec import Digest, Frozen, Text, to_json
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.bundle.manifest import InputShape

MOST_IMAGES, MOST_VALUES = 64, 2**22
"""The largest batch of a profile, in images and in pixel values; it fits into the memory of a Jetson."""
WORKSPACE = 256 * 2**20
"""The bytes that TensorRT may use besides weights and activations."""
PLACE = "engines"
LOCK = ".lock"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Profile(Frozen):
    """Images in one pass of an engine: the fewest, the number for which it is tuned, and the most."""

    least: int = 1
    usual: int = Field(gt=0)
    most: int = Field(gt=0)


class EngineKey(Frozen):
    """Everything that determines what an engine computes and where it runs. The graph determines the precision.

    `tensorrt` is `Library.version`: 10.3.0, or RTX 1.7.1.116.
    """

    graph_sha256: Digest
    tensorrt: Text
    cuda: Text
    gpu: Text
    compute_capability: Text
    profile: Profile
    strongly_typed: Literal[True] = True
    tf32: bool = False
    workspace: int = WORKSPACE

    def digest(self) -> str:
        """Return the SHA-256 of the key in canonical JSON."""
        return sha256(to_json(self))

    def timings(self) -> str:
        """Return the digest of the GPU and TensorRT, for which timings of kernels are valid, whatever the graph."""
        return sha256(f"{self.tensorrt} {self.cuda} {self.gpu} {self.compute_capability}".encode())


class Sidecar(Frozen):
    """The record beside an engine file. `device` is the `CudaDevice.identity` of the GPU that built it."""

    schema_: Literal["edgeproof.engine/1"] = Field(alias="schema", default="edgeproof.engine/1")
    key: EngineKey
    device: Digest
    engine_sha256: Digest


@dataclass(frozen=True)
class Built:
    """The result of a build: an engine, and the kernel timings that make the next build faster."""

    engine: bytes
    timings: bytes


class Stale(Exception):
    """An engine on disk cannot be used; the message says why."""


def profile_for(shape: InputShape) -> Profile:
    """Return the batch sizes that a model's engines accept; larger batches are split."""
    most = max(1, min(MOST_IMAGES, MOST_VALUES // (shape.channels * shape.height * shape.width)))
    return Profile(usual=most, most=most)


def engines_directory(state: Path | None) -> Path:
    """Return the directory of engines: in the state directory if there is one, else in the user's cache.

    Raises:
        MissingEnvironment: the user has no home directory.

    """
    if state is not None:
        return state / PLACE
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "edgeproof" / PLACE
    except RuntimeError as error:
        raise MissingEnvironment(
            f"there is no directory for engines: {error}", hint="name a directory with --state"
        ) from None


@dataclass(frozen=True)
class EngineStore:
    """A directory of engines.

    Args:
        directory: the directory of engines; it is made if needed.
        device: the identity of the device that builds and loads here.

    """

    directory: Path
    device: str

    def obtain(self, key: EngineKey, build: Callable[[bytes], Built], load: Callable[[bytes], None], role: str) -> str:
        """Load the engine of a key, or build it if there is none to use; return the digest of its bytes.

        Args:
            key: of the engine.
            build: builds the engine, from earlier timings of kernels (empty if there are none).
            load: deserialises the engine and keeps it.
            role: the engine's name in the log.

        Raises:
            EngineFault: the engine cannot be built, or not loaded after it was built.
            MissingEnvironment: the directory cannot be made or written to, or does not belong to the user alone.
            EdgeproofError: `build` raises it.
            KeyboardInterrupt: the user asked for it during the build; the engine was stored first.

        """
        private_directory(self.directory)
        with wait_for_lock(self.directory / LOCK, f"the TensorRT engine of the {role}"):
            try:
                data = self.read(key)
                load(data)
                return sha256(data)
            except (Stale, EngineFault) as reason:
                log.info(f"TensorRT engine of the {role}: {reason}; building it, which can take minutes")
            with defer_signals(told=False) as asked:  # TensorRT ignores what its logger raises, an interrupt too
                built = build(self._timings(key))
                self.write(key, built)
            if asked():
                raise KeyboardInterrupt
            load(built.engine)
            return sha256(built.engine)

    def read(self, key: EngineKey) -> bytes:
        """Return the bytes of an engine that this device built for this key.

        Raises:
            Stale: there is no such engine, or it is damaged, or of another user or device.

        """
        try:
            sidecar = Sidecar.model_validate_json(_read_own(self._file(key, ".json")))
        except FileNotFoundError:
            raise Stale("there is none yet") from None
        except ValidationError:
            raise Stale("its sidecar is damaged") from None
        if sidecar.key != key:
            raise Stale("its sidecar belongs to another engine")
        if sidecar.device != self.device:
            raise Stale("another device built the one on disk")
        try:
            data = _read_own(self._file(key, ".engine"))
        except FileNotFoundError:
            raise Stale("its file is missing") from None
        if sha256(data) != sidecar.engine_sha256:
            raise Stale("its file is not the one that was built")
        return data

    def write(self, key: EngineKey, built: Built) -> None:
        """Write an engine to disk, and then its sidecar."""
        sidecar = Sidecar(key=key, device=self.device, engine_sha256=sha256(built.engine))
        write_atomic(self._file(key, ".engine"), built.engine, mode=0o600)
        write_atomic(self._file(key, ".json"), to_json(sidecar), mode=0o600)
        if built.timings:
            write_atomic(self._timings_file(key), built.timings, mode=0o600)

    def _timings(self, key: EngineKey) -> bytes:
        try:
            return _read_own(self._timings_file(key))
        except (FileNotFoundError, Stale):
            return b""

    def _file(self, key: EngineKey, suffix: str) -> Path:
        return self.directory / (key.digest() + suffix)

    def _timings_file(self, key: EngineKey) -> Path:
        return self.directory / f"timings-{sha256((key.timings() + self.device).encode())}"


def private_directory(directory: Path) -> None:
    """Make a directory that only the user can access, unless it exists.

    Raises:
        MissingEnvironment: the directory cannot be made, or others may write to it.

    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise MissingEnvironment(
            f"{directory} cannot be made: {error.strerror}", hint="--state DIR keeps engines elsewhere"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
        raise MissingEnvironment(
            f"{directory} is not a directory that only you can write to, and engines are executable code",
            hint=f"chmod 700 {directory}, remove it, or name another --state",
        )


def _read_own(path: Path) -> bytes:
    """Return the bytes of a plain file to which only the user may write.

    Raises:
        FileNotFoundError: there is no such file.
        Stale: it is a link, or of another user, or others may write to it.

    """
    try:
        handle, status = open_plain(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Stale(f"{path.name} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
        os.close(handle)
        raise Stale(f"{path.name} is not a file that only you can write to")
    with os.fdopen(handle, "rb") as file:
        return file.read()

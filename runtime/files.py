"""Files: written whole or not at all, and known by their digest."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import io
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import MissingEnvironment, UsageFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{8}")
"""What `write_atomic` calls a file until it is whole."""
BEGUN = ".begun"
"""Ends the name of a directory until it is whole; nobody calls his own so."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Opens a directory to lock it, and no link to one."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader, or a power cut, sees the old file or the new one.

    When it returns, the new file survives a power cut. At no time may more read it than `mode`, less the umask, says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_half_written(directory: Path, name: str = "*") -> None:
    """Remove what a killed process left of a file, or of all, in a directory that no other process writes to."""
    for path in directory.glob(f".{name}.????????"):
        if HALF_WRITTEN.fullmatch(path.name) and path.is_file():
            path.unlink()


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a directory that becomes `path` if the block succeeds, and vanishes if not.

    It lies beside `path`. Where `path` is there already, empty, it lies inside, and its files are moved up one by one,
    in the order in which they were written: a container's volume is a mount point, whose place nothing can take.
    """
    check_new_directory(path)
    path = path.absolute()
    inside = path.is_dir()
    folder = path if inside else path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _begun(path, folder) as temporary:
        inner = temporary / path.name
        inner.mkdir()
        yield inner
        sync_directory(inner)
        if inside:
            for entry in sorted(inner.iterdir(), key=lambda entry: entry.stat().st_mtime_ns):
                entry.replace(path / entry.name)
        else:
            inner.replace(path)
        sync_directory(folder)


@contextlib.contextmanager
def _begun(path: Path, folder: Path) -> Iterator[Path]:
    """Yield a directory in `folder` for what becomes `path`; it is locked, and vanishes in the end.

    Before it is locked, another process may take it for abandoned: then another is made.
    """
    while True:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{path.name}.", suffix=BEGUN) as temporary:
            handle = _lock_new(Path(temporary))
            if handle is None:
                continue
            try:
                yield Path(temporary)
            finally:
                os.close(handle)
            return


def _lock_new(directory: Path) -> int | None:
    """Lock a directory that was just made, where that can be, until its handle is closed; None if it was removed."""
    try:
        handle = os.open(directory, DIRECTORY)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)  # who removes it holds the lock until it is gone
    if directory.is_dir():
        return handle
    os.close(handle)
    return None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory until the block or the process ends; yields False where it cannot be locked."""
    handle = os.open(directory, DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove what a killed process left of a new directory `path`; what a living one fills is locked, and stays."""
    name = f".{glob.escape(path.name)}.????????{BEGUN}"
    for begun in (*path.parent.glob(name), *path.glob(name)):
        with contextlib.suppress(OSError):
            if {entry.name for entry in begun.iterdir()} <= {path.name}:
                with _locked(begun) as abandoned:
                    if abandoned:
                        shutil.rmtree(begun)


PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_plain(path: Path) -> tuple[int, os.stat_result]:
    """Open a file that somebody else may have put there, and say what it is: no link is followed, no pipe waited for.

    Whoever calls it closes the handle, and looks whether it is a plain file.

    Raises:
        OSError: it cannot be opened; ELOOP for a link.

    """
    handle = os.open(path, PLAIN)
    return handle, os.fstat(handle)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk: a rename is lasting only after this."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_new_directory(path: Path, *, resumable: bool = False) -> None:
    """Check, before any work, that `path` can become a new directory.

    Makes a directory in its place and removes it at once; what a killed process began to fill there is removed too.
    `resumable`: the command has --resume.

    Raises:
        UsageFault: it is a file, or a directory that holds anything.
        MissingEnvironment: its place cannot be written to.
    """
    _remove_abandoned(path.absolute())
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageFault(
            f"{path} exists and is not empty",
            hint="remove it, name another --out, or go on with --resume" if resumable else "remove it, or name another",
        )
    check_writable(path)


def check_writable(path: Path) -> None:
    """Check that files can be made in a directory that exists or is to be made; what an earlier check left is removed.

    Raises:
        MissingEnvironment: its place cannot be written to.
    """
    path = path.absolute()
    _remove_abandoned(path)
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(
            dir=existing, prefix=f".{path.name}.", suffix=BEGUN
        ):  # permissions alone say nothing: root has them all
            pass
    except OSError as error:
        raise MissingEnvironment(
            f"{existing} cannot be written to: {error.strerror}", hint="name another --out"
        ) from None


def npz_of(arrays: Mapping[str, Any]) -> bytes:
    """Return the bytes of an .npz of arrays, by name."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()

"""Files that are written completely or not at all, and their digests."""

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
"""The temporary name that `write_atomic` gives a file until it is complete."""
BEGUN = ".begun"
"""The suffix of a directory's temporary name until it is complete. No user's directory is expected to have it."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a directory for locking, and refuse a symbolic link to one."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader, also after a power cut, sees either the old file or the new one.

    When it returns, the new file survives a power cut. The file never has more permissions than `mode` without the
    bits of the umask.
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
    """Remove the temporary files that a killed `write_atomic` left of `name`, by default of all files.

    No other process may be writing to the directory.
    """
    for path in directory.glob(f".{name}.????????"):
        if HALF_WRITTEN.fullmatch(path.name) and path.is_file():
            path.unlink()


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path` if the block succeeds, and is removed if it fails.

    It lies beside `path`. If `path` exists and is empty, it lies inside, and its files are moved up one by one in the
    order in which they were written: `path` may be a mount point, such as a container's volume, and cannot be replaced.
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
    """Yield a locked temporary directory in `folder` for the files of `path`; it is removed at the end.

    Before it is locked, another process may take it for abandoned and remove it. Then a new one is made.
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
    """Lock a new directory, if its file system has locks, and return its handle; None if it was removed meanwhile."""
    try:
        handle = os.open(directory, DIRECTORY)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)  # a process that removes it holds the lock until it is gone
    if directory.is_dir():
        return handle
    os.close(handle)
    return None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory until the block or the process ends; yield whether that succeeded."""
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
    """Remove the temporary directories that killed processes left for `path`.

    A running process holds a lock on its own, which stays.
    """
    name = f".{glob.escape(path.name)}.????????{BEGUN}"
    for begun in (*path.parent.glob(name), *path.glob(name)):
        with contextlib.suppress(OSError):
            if {entry.name for entry in begun.iterdir()} <= {path.name}:
                with _locked(begun) as abandoned:
                    if abandoned:
                        shutil.rmtree(begun)


PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_plain(path: Path) -> tuple[int, os.stat_result]:
    """Open a file that is not trusted, and return its handle and status. It follows no link and waits for no pipe.

    The caller closes the handle, and checks that the file is a regular one.

    Raises:
        OSError: the file cannot be opened; ELOOP for a link.

    """
    handle = os.open(path, PLAIN)
    return handle, os.fstat(handle)


def sync_directory(path: Path) -> None:
    """Flush the names in a directory to the disk. Only then does a rename survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_new_directory(path: Path, *, resumable: bool = False) -> None:
    """Check, before any work, that `path` can become a new directory.

    It makes a temporary directory there and removes it. It also removes those that killed processes left.
    `resumable`: the command has --resume.

    Raises:
        UsageFault: `path` is a file, or a directory that is not empty.
        MissingEnvironment: its parent directory cannot be written to.
    """
    _remove_abandoned(path.absolute())
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageFault(
            f"{path} exists and is not empty",
            hint="remove it, name another --out, or go on with --resume" if resumable else "remove it, or name another",
        )
    check_writable(path)


def check_writable(path: Path) -> None:
    """Check that files can be made in a directory, which may not exist yet; remove what an earlier check left.

    Raises:
        MissingEnvironment: the directory, or its nearest existing parent, cannot be written to.
    """
    path = path.absolute()
    _remove_abandoned(path)
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(
            dir=existing, prefix=f".{path.name}.", suffix=BEGUN
        ):  # permission bits say too little: root passes all of them
            pass
    except OSError as error:
        raise MissingEnvironment(
            f"{existing} cannot be written to: {error.strerror}", hint="name another --out"
        ) from None


def npz_of(arrays: Mapping[str, Any]) -> bytes:
    """Return the bytes of an .npz file that holds these arrays by name."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()

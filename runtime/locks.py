"""Locks between processes, by `flock`: one ends with its process, also when that is killed, and nothing stale stays."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from runtime.errors import MissingEnvironment
from runtime.files import sync_directory
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOMENT, PAUSE = 2.0, 0.05
"""Seconds that a lock is waited for in silence, and between two tries in them."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def try_lock(handle: int, path: Path) -> bool:
    """Lock an open file for this process as long as it is open; False where another process holds it.

    Raises:
        MissingEnvironment: its file system has no locks, as Lustre without `-o flock`.

    """
    return _lock(handle, path, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of a directory, or of a file, which is made where there is none; yields False where it is taken.

    Raises:
        MissingEnvironment: it cannot be made or opened, or see `try_lock`.

    """
    handle = _opened(path)
    try:
        yield try_lock(handle, path)
    finally:
        os.close(handle)


@contextlib.contextmanager
def wait_for_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock that is a file, made where there is none; while another process holds it, wait.

    After a moment a line on stderr says that, and for what: `what` is what the lock guards.

    Raises:
        MissingEnvironment: see `lock_if_free`.

    """
    handle = _opened(path)
    try:
        patience = time.monotonic() + MOMENT
        while not (mine := try_lock(handle, path)) and time.monotonic() < patience:
            time.sleep(PAUSE)
        if not mine:
            log.info(f"waiting for {what}: another process holds {path}")
            _lock(handle, path, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    directory = path.parent
    try:
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            sync_directory(directory.parent)
        return os.open(path, os.O_CLOEXEC | (os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT), 0o644)
    except OSError as error:
        raise MissingEnvironment(f"{directory} cannot be written to: {error.strerror}", hint="name another") from None


def _lock(handle: int, path: Path, how: int) -> bool:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError as error:
        none = error.errno in NO_LOCKS
        raise MissingEnvironment(
            f"the file system of {path} has no locks" if none else f"{path} cannot be locked: {error.strerror}",
            hint="name a directory on one that has: a local disk, NFS with its lock service, Lustre with `-o flock`",
        ) from None
    return True

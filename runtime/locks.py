"""Locks between processes, by `flock`. The system releases a lock when its process ends, even if it is killed."""

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
"""Seconds to wait for a lock before saying so, and seconds between two tries meanwhile."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def try_lock(handle: int, path: Path) -> bool:
    """Lock an open file for as long as it is open; return False if another process holds the lock.

    Raises:
        MissingEnvironment: the file system has no locks, as Lustre without `-o flock`.

    """
    return _lock(handle, path, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of a directory or file during the block; yield False if another process holds it.

    A path that does not exist is made as a file.

    Raises:
        MissingEnvironment: the path cannot be made or opened, or its file system has no locks.

    """
    handle = _opened(path)
    try:
        yield try_lock(handle, path)
    finally:
        os.close(handle)


@contextlib.contextmanager
def wait_for_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file during the block; wait while another process holds it. The file is made if needed.

    After MOMENT seconds, a line on stderr says that it waits for `what`, the thing that the lock guards.

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

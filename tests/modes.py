"""The modes of what a command leaves on disk, under one umask or another."""

import contextlib
import os
import stat

UMASKS = {0o022: (0o644, 0o755), 0o077: (0o600, 0o700), 0o027: (0o640, 0o750)}
"""To the modes of files and of directories."""


@contextlib.contextmanager
def under(umask):
    """Set the umask of this process, and yield the modes that new files and directories then have."""
    before = os.umask(umask)
    try:
        yield UMASKS[umask]
    finally:
        os.umask(before)


def left(directory):
    """Return the modes of all files, and of all directories, at and below a directory."""
    every = [directory, *directory.rglob("*")]
    return tuple(
        {stat.S_IMODE(path.stat().st_mode) for path in every if path.is_dir() is kind} for kind in (False, True)
    )

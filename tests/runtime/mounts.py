"""File systems of one's own for a test: as small or as closed as it needs; only where the kernel lets us."""

import contextlib
import subprocess

import pytest


def _mount(*arguments):
    result = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"nothing can be mounted here: {result.stderr.strip()}")


@contextlib.contextmanager
def tmpfs(place, size):
    """Mount a file system of so many bytes at a directory, which is made if it is not there, and yield it."""
    place.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def read_only(place):
    """Let nothing below a directory be written, by root neither."""
    _mount("--bind", place, place)
    try:
        _mount("-o", "remount,bind,ro", place)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)

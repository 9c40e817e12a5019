"""Reads small files of the kernel and the board, any of which may be missing, empty or unreadable."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")


def read(path: Path) -> str | None:
    """Return the stripped text of a file; None if it is missing, empty or cannot be read now.

    The sensor of a part that is switched off answers with an error (EAGAIN), which is normal.
    """
    try:
        text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return text or None


def number(path: Path) -> float | None:
    """Return the number in a file; None if it has none."""
    try:
        return float(read(path) or "")
    except ValueError:
        return None


def found(root: Path, pattern: str) -> list[Path]:
    """Return the paths below `root` that match a pattern, sorted; nothing if a directory cannot be listed."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []

"""The small files in which a kernel and a board say what they are: each may be missing, empty or refuse to be read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")


def read(path: Path) -> str | None:
    """Return the text of a file without its ends; None where it is missing, empty or cannot be read now.

    A sensor of a part that is switched off answers with an error (EAGAIN), and that is no error of ours.
    """
    try:
        text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return text or None


def number(path: Path) -> float | None:
    """Return the number that a file holds; None where it holds none."""
    try:
        return float(read(path) or "")
    except ValueError:
        return None


def found(root: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern below `root`, in order; nothing where a directory cannot be listed."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []

"""The command that resumes a stopped run: the command as it was typed, with --out and --resume."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TYPED = "edgeproof.typed"
"""The key in click's `Context.meta` of the words of the command line after the program's name."""
OUT, RESUME = "--out", "--resume"


def to_go_on(out: Path) -> str:
    """Return in words how to resume a stopped run that has done a part of its work in `out`."""
    ctx = click.get_current_context(silent=True)
    typed = ctx.meta.get(TYPED) if ctx else None
    more = f"{OUT} {shlex.quote(str(out))} {RESUME}"
    command = f"edgeproof {shlex.join(_without(typed))}" if typed else "the same command with"
    return f"finished work is saved; to resume: {command} {more}"


def _without(typed: Sequence[str]) -> list[str]:
    """Return the words of a command without its --out and --resume."""
    words, rest = [], iter(typed)
    for word in rest:
        if word == OUT:
            next(rest, None)
        elif word != RESUME and not word.startswith(f"{OUT}="):
            words.append(word)
    return words

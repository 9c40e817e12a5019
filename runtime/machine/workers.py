"""Pieces of a batch, run side by side by a session's threads."""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future, ThreadPoolExecutor

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")


def run_side_by_side(pool: ThreadPoolExecutor, run: Callable[[Piece], Answer], pieces: Iterable[Piece]) -> list[Answer]:
    """Return what `run` answers to each piece, in their order; raises what it raises first.

    Where one fails, none is left running: it would hold the memory that a smaller batch needs.
    """
    runs: list[Future[Answer]] = []
    try:
        for piece in pieces:
            runs.append(pool.submit(run, piece))  # one may find no thread
        return [each.result() for each in runs]
    finally:
        for each in runs:
            each.cancel()
        wait(runs)
        runs.clear()  # an error's traceback holds this frame, and so what the others found

"""Runs pieces of a batch side by side, in a session's threads."""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future, ThreadPoolExecutor

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")


def run_side_by_side(pool: ThreadPoolExecutor, run: Callable[[Piece], Answer], pieces: Iterable[Piece]) -> list[Answer]:
    """Return the results of `run` for all pieces, in order; raise the error of the first piece that fails.

    After an error, no piece is left running, because it would hold memory that a smaller batch needs.
    """
    runs: list[Future[Answer]] = []
    try:
        for piece in pieces:
            runs.append(pool.submit(run, piece))  # may fail to start a thread
        return [each.result() for each in runs]
    finally:
        for each in runs:
            each.cancel()
        wait(runs)
        runs.clear()  # an error's traceback keeps this frame, and so the results, alive

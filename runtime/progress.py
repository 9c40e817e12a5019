"""How far a run is, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress(Protocol):
    """Told of the stages of a run; a stage ends when the next begins."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` images."""

    def advance(self, count: int) -> None:
        """Count images as done."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: int) -> None:
        """Ignore it."""

    def advance(self, count: int) -> None:
        """Ignore it."""


class Lines:
    """One line whenever another tenth of a stage is done."""

    def __init__(self) -> None:
        self._name, self._total, self._done = "", 0, 0

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._total, self._done = name, total, 0
        if not total:
            log(f"{name}: no image to attack")

    def advance(self, count: int) -> None:
        """Write a line where a tenth is passed."""
        before, self._done = self._done, self._done + count
        if self._done * 10 // self._total > before * 10 // self._total:
            log(f"{self._name}: {self._done} of {self._total} images")


class Bar:
    """One bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def stage(self, name: str, total: int) -> None:
        """Begin a bar."""
        self._task = self._bars.add_task(name, total=total)

    def advance(self, count: int) -> None:
        """Move the bar."""
        self._bars.advance(self._task, count)


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """Yield a bar where stderr is a terminal, else plain lines."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield Bar(bars)


def log(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

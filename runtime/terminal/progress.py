"""The progress of a run on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from runtime.terminal.log import is_quiet, log
from runtime.words import clock, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

Self = TypeVar("Self", bound="Lines")
FIRST_SECONDS, LINE_SECONDS = 5.0, 60.0
"""Seconds before a stage's first line if stderr is no terminal, and the longest pause; each pause is twice the last."""
REDRAWN_SECONDS = 0.1
"""The least time between two movements of a bar."""
WHOLE = 1e-6
"""The rounding error up to which parts of images add up to whole images."""


class Progress(Protocol):
    """Follows the stages of a run. A stage ends when the next begins."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` images."""

    def advance(self, count: float, *, fresh: bool = True) -> None:
        """Count images, or parts of them, as done. If not `fresh`, an earlier process did them, and no rate follows."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int) -> None:
        """Ignore it."""

    def advance(self, count: float, *, fresh: bool = True) -> None:
        """Ignore it."""


class Pace:
    """The progress of a stage and the rate of this process. Several threads may use it."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self._fresh = total, 0.0, 0.0
        self._began, self._lock = time.monotonic(), threading.Lock()

    def advance(self, count: float, *, fresh: bool) -> None:
        """Count images as done."""
        with self._lock:
            self.done += count
            if fresh:
                self._fresh += count
            else:
                self._began = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether all images are done."""
        return self.done >= self.total - WHOLE

    def __str__(self) -> str:
        """Return '32 % of 2000 images, 0:33 left'; at the end '2000 images in 48.2 s'."""
        if not self.total:
            return "no image left"
        seconds = time.monotonic() - self._began
        if self.ended:
            return f"{self.total} images {f'in {duration(seconds)}' if self._fresh else 'from before'}"
        share = self.done / self.total
        left = f", {clock(seconds * (self.total - self.done) / self._fresh)} left" if self._fresh else ""
        return f"{_percent(share)} of {self.total} images{left}"


def _percent(share: float) -> str:
    """Write a share with enough digits to show slow progress: 32 %, 3.2 %, 0.032 %."""
    return f"{100 * share:.0f} %" if share >= 0.1 or not share else f"{100 * share:.2g} %"


class Lines:
    """Writes lines during a stage, from a thread, and one at its end.

    Args:
        every: the most seconds between two lines.

    """

    def __init__(self, every: float = LINE_SECONDS) -> None:
        self._every, self._name, self._pace = every, "", Pace(0)
        self._wait()

    def __enter__(self: Self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._pace = name, Pace(total)
        self._wait()
        if not total:
            log.info(str(self))

    def advance(self, count: float, *, fresh: bool = True) -> None:
        """Count images; write a line when the stage ends."""
        self._pace.advance(count, fresh=fresh)
        if self._pace.ended:
            log.info(str(self))

    def __str__(self) -> str:
        """Return the line: 'pgd: 32 % of 2000 images, 0:33 left'."""
        return f"{self._name}: {self._pace}"

    def _wait(self, seconds: float = FIRST_SECONDS) -> None:
        self._pause = min(seconds, self._every)
        self._due = time.monotonic() + self._pause

    def _beat(self) -> None:
        while not self._ended.wait(min(self._every, 1.0)):
            if time.monotonic() >= self._due and not self._pace.ended:
                log.info(str(self))
                self._wait(2 * self._pause)


class Bar:
    """Shows one bar per stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars, self._pace, self._drawn = bars, Pace(0), 0.0

    def stage(self, name: str, total: int) -> None:
        """Begin a bar."""
        self._pace = Pace(total)
        self._task = self._bars.add_task(name, total=total, pace=str(self._pace))

    def advance(self, count: float, *, fresh: bool = True) -> None:
        """Move the bar."""
        self._pace.advance(count, fresh=fresh)
        now = time.monotonic()
        if self._pace.ended or now - self._drawn >= REDRAWN_SECONDS:
            self._drawn = now
            self._bars.update(self._task, completed=self._pace.done, pace=str(self._pace))


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """Yield a bar if stderr is a terminal, or else plain lines; with -q, neither."""
    if is_quiet():
        yield Silent()
        return
    if not sys.stderr.isatty():
        with Lines() as lines:
            yield lines
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[pace]}"))
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield Bar(bars)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show that work without measurable progress is going on and, if it was long, how long it took."""
    began = time.monotonic()
    if is_quiet():
        yield
        return
    if sys.stderr.isatty():
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Bars(*columns, console=Console(stderr=True)) as bars:
            bars.add_task(what, total=None)
            yield
        return
    log.info(f"{what} ...")
    yield
    if (seconds := time.monotonic() - began) >= FIRST_SECONDS:
        log.info(f"{what}: done in {duration(seconds)}")

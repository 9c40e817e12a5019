"""How far a run is, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from runtime.terminal.log import is_quiet, log
from runtime.words import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

Self = TypeVar("Self", bound="Lines")
LINE_SECONDS = 60.0
"""Between two lines of a run whose stderr is no terminal."""


class Progress(Protocol):
    """Told of the stages of a run; a stage ends when the next begins."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` images."""

    def advance(self, count: int, *, fresh: bool = True) -> None:
        """Count images as done; not `fresh`: by an earlier process, so that they say nothing of the rate."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: int) -> None:
        """Ignore it."""

    def advance(self, count: int, *, fresh: bool = True) -> None:
        """Ignore it."""


class Pace:
    """How fast a stage goes: images a second of this process, and the seconds that are left at this rate."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self._fresh, self._began = total, 0, 0, time.monotonic()

    def advance(self, count: int, *, fresh: bool) -> None:
        """Count images as done."""
        self.done += count
        if fresh:
            self._fresh += count
        else:
            self._began = time.monotonic()

    def __str__(self) -> str:
        """Return the rate and the time left, as '41.2 images/s, 0:32 left'; nothing before there is a rate."""
        rate = self._fresh / max(time.monotonic() - self._began, 1e-9)
        if not rate:
            return ""
        return f"{rate:.{1 if rate < 100 else 0}f} images/s, {clock((self.total - self.done) / rate)} left"


class Lines:
    """One line a minute and one at the end of a stage; the former from a thread, however long a unit takes.

    Args:
        every: seconds between two lines.

    """

    def __init__(self, every: float = LINE_SECONDS) -> None:
        self._every, self._name, self._pace = every, "", Pace(0)
        self._fresh = True

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
        if not total:
            log.info(f"{name}: no image to attack")

    def advance(self, count: int, *, fresh: bool = True) -> None:
        """Write a line where the stage ends."""
        self._fresh = fresh
        self._pace.advance(count, fresh=fresh)
        if self._pace.done >= self._pace.total:
            log.info(str(self))

    def __str__(self) -> str:
        """Return the line: 'pgd: 640 of 2000 images, 41.2 images/s, 0:33 left'."""
        how = str(self._pace) if self._fresh else "from before"
        return f"{self._name}: {self._pace.done} of {self._pace.total} images{how and ', '}{how}"

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            if self._pace.done < self._pace.total:
                log.info(str(self))


class Bar:
    """One bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars, self._pace = bars, Pace(0)

    def stage(self, name: str, total: int) -> None:
        """Begin a bar."""
        self._task, self._pace = self._bars.add_task(name, total=total, pace=""), Pace(total)

    def advance(self, count: int, *, fresh: bool = True) -> None:
        """Move the bar."""
        self._pace.advance(count, fresh=fresh)
        self._bars.update(self._task, advance=count, pace=str(self._pace))


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """Yield a bar where stderr is a terminal, else a plain line a minute; nothing of both where -q asks for quiet."""
    if is_quiet():
        yield Silent()
        return
    if not sys.stderr.isatty():
        with Lines() as lines:
            yield lines
        return
    pace = TextColumn("{task.fields[pace]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), pace)
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield Bar(bars)

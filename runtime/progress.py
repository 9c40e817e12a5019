"""How far a run is, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
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
        minutes, seconds = divmod(round((self.total - self.done) / rate), 60)
        hours, minutes = divmod(minutes, 60)
        left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        return f"{rate:.{1 if rate < 100 else 0}f} images/s, {left} left"


class Lines:
    """One line whenever another tenth of a stage is done."""

    def __init__(self) -> None:
        self._name, self._pace = "", Pace(0)

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._pace = name, Pace(total)
        if not total:
            log(f"{name}: no image to attack")

    def advance(self, count: int, *, fresh: bool = True) -> None:
        """Write a line where a tenth is passed."""
        pace = self._pace
        before = pace.done
        pace.advance(count, fresh=fresh)
        if pace.done * 10 // pace.total > before * 10 // pace.total:
            how = str(pace) if fresh else "from before"
            log(f"{self._name}: {pace.done} of {pace.total} images{how and ', '}{how}")


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
    """Yield a bar where stderr is a terminal, else plain lines."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    pace = TextColumn("{task.fields[pace]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), pace)
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield Bar(bars)


def log(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

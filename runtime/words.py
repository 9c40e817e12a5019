"""Figures and texts in words, alike in every report, log line and message."""

from __future__ import annotations

from datetime import datetime, timezone
from math import isclose
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNSEEN = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "?"),
    **dict.fromkeys(range(0xD800, 0xE000), "?"),  # halves of a sign, which no file can hold
    **dict.fromkeys(map(ord, "\t\n\v\f\r\x85\u2028\u2029"), " "),
}
"""What moves the cursor, colours the rest or turns its direction, and what is shown in its place."""


def printable(text: str) -> str:
    """Return a text from outside on one line, with '?' for what a reader would not see but feel."""
    return text.translate(UNSEEN)


def printable_lines(text: str) -> str:
    """Return the same of a text that may have lines."""
    return "\n".join(map(printable, text.split("\n")))


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return '; did you mean pgd-20?' for a name that is close to a known one, in any case; else nothing."""
    from difflib import get_close_matches  # slow to import

    names = {name.casefold(): name for name in known}
    close = get_close_matches(str(given).casefold(), list(names), n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""


def timestamp() -> str:
    """Return the time now, ISO 8601 in UTC to the second."""
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def moment(text: str) -> datetime:
    """Return the time that a `timestamp` says.

    Raises:
        ValueError: it is none.

    """
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def percent(fraction: float, digits: int = 1) -> str:
    """Write a fraction as percent, by default with one decimal."""
    return f"{100 * fraction:.{digits}f} %"


def points(fraction: float) -> str:
    """Write a difference of fractions as percentage points with one decimal."""
    return f"{100 * fraction:.1f} points"


def signed(fraction: float) -> str:
    """Write a difference of fractions in percentage points, with its sign."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def interval(ends: tuple[float, float]) -> str:
    """Write an interval of fractions as percent with one decimal."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def radius(eps: float) -> str:
    """Write an L-infinity radius as people do: 8/255, 2.5/255; 0.3 where that is it, or no quarter of 1/255 is."""
    short, quarters = f"{eps:.2g}", round(4 * 255 * eps)
    if float(short) == eps:
        return short
    if quarters and isclose(quarters / 4 / 255, eps, rel_tol=1e-6):
        return f"{quarters / 4:g}/255"
    return f"{eps:.4g}"


def exact_radius(eps: float) -> str:
    """Write a radius so that it is read as the same float: 8/255 where that is it, else its decimals."""
    level = round(255 * eps, 2)
    return f"{level:g}/255" if level / 255 == eps else str(eps)


def file_size(count: int) -> str:
    """Write a number of bytes: 2.8 MB, 36.2 kB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    """Write a time as people do: 12.3 s, 4:05 min, 1:02:03 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def roughly(seconds: float) -> str:
    """Write a time that is only estimated: a minute, 12 minutes, 4.9 hours."""
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if round(minutes) < 100 else f"{minutes / 60:.2g} hours"


def clock(seconds: float) -> str:
    """Write a time as a clock does: 0:32, 1:41:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

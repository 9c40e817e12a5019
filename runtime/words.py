"""How figures and texts are written in every report, log line and message."""

from __future__ import annotations

from datetime import datetime, timezone
from math import isclose
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNSEEN = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "?"),
    **dict.fromkeys(range(0xD800, 0xE000), "?"),  # lone surrogates, which cannot be encoded
    **dict.fromkeys(map(ord, "\t\n\v\f\r\x85\u2028\u2029"), " "),
}
"""Characters that move the cursor, change colours or turn the writing direction, and what replaces each."""


def printable(text: str) -> str:
    """Return a text on one line, with '?' in place of control and direction characters."""
    return text.translate(UNSEEN)


def printable_lines(text: str) -> str:
    """Return a text with its lines kept, each made `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return '; did you mean pgd-20?' if a name is close to a known one, upper or lower case alike; else ''."""
    from difflib import get_close_matches  # slow to import

    names = {name.casefold(): name for name in known}
    close = get_close_matches(str(given).casefold(), list(names), n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""


def timestamp() -> str:
    """Return the current time in UTC as ISO 8601, to the second."""
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def moment(text: str) -> datetime:
    """Parse a `timestamp`.

    Raises:
        ValueError: the text is not one.

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
    """Write an L-infinity radius: 0.3 if two digits are exact, else 2.5/255 for a quarter of 1/255, else 0.0312."""
    short, quarters = f"{eps:.2g}", round(4 * 255 * eps)
    if float(short) == eps:
        return short
    if quarters and isclose(quarters / 4 / 255, eps, rel_tol=1e-6):
        return f"{quarters / 4:g}/255"
    return f"{eps:.4g}"


def exact_radius(eps: float) -> str:
    """Write a radius so that it parses to the same float: 8/255 if that is exact, else all its decimals."""
    level = round(255 * eps, 2)
    return f"{level:g}/255" if level / 255 == eps else str(eps)


def file_size(count: int) -> str:
    """Write a number of bytes: 2.8 MB, 36.2 kB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    """Write a duration: 12.3 s, 4:05 min, 1:02:03 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def roughly(seconds: float) -> str:
    """Write an estimated duration: a minute, 12 minutes, 4.9 hours."""
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if round(minutes) < 100 else f"{minutes / 60:.2g} hours"


def clock(seconds: float) -> str:
    """Write a duration as on a clock: 0:32, 1:41:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""CSV tables that are safe to open: a spreadsheet would compute a cell that begins like a formula."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from runtime.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Cell = str | float | None

FORMULA = ("=", "+", "-", "@")
"""A spreadsheet computes a cell that begins with one of these (owasp.org/www-community/attacks/CSV_Injection)."""


def csv_table(heading: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table as CSV. Each text is put on one line, and a text like a formula gets an apostrophe before it."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(map(_plain, row) for row in (heading, *rows))
    return buffer.getvalue()


def _plain(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text

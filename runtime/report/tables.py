"""Tables and lines on a terminal. Texts are printed literally, without markup or control characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from runtime.words import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


def new_table(headings: Sequence[str]) -> Table:
    """Return a table without rows. The first column aligns left, the others right; long texts are folded."""
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(_plain(heading), justify="right" if number else "left", overflow="fold")
    return table


def add_row(table: Table, cells: Sequence[str], style: str | None = None) -> None:
    """Add a row of texts; without cells, an empty line."""
    table.add_row(*map(_plain, cells), style=style)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print a text, with its lines kept."""
    console.print(_plain(text), style=style)


def _plain(text: str) -> Text:
    return Text(printable_lines(text), overflow="fold")

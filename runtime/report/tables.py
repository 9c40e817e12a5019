"""Tables on a terminal, in which every text is shown as it is: none is read as markup, and none moves the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from runtime.words import printable

if TYPE_CHECKING:
    from collections.abc import Sequence


def new_table(headings: Sequence[str]) -> Table:
    """Return a table without rows: the first column to the left, figures to the right; what is too long is folded."""
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(_plain(heading), justify="right" if number else "left", overflow="fold")
    return table


def add_row(table: Table, cells: Sequence[str], style: str | None = None) -> None:
    """Add a row of texts; of none, an empty line."""
    table.add_row(*map(_plain, cells), style=style)


def _plain(text: str) -> Text:
    return Text("\n".join(map(printable, text.split("\n"))), overflow="fold")

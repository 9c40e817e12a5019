"""Figures that others have published, to show beside measured ones."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from runtime.spec import Frozen, Text

FILE = Path(__file__).with_name("published.toml")


class Published(Frozen):
    """One published table: its setting and source, and for each student and method one value per column, in percent."""

    title: Text
    source: Text
    columns: tuple[Text, ...]
    rows: dict[Text, dict[Text, tuple[float, ...]]]

    def figures(self, student: str, method: str) -> dict[str, float]:
        """Return the values of one row by column; nothing if the row was not published."""
        values = self.rows.get(student, {}).get(method, ())
        return dict(zip(self.columns, values, strict=True)) if values else {}


@cache
def published() -> dict[str, Published]:
    """Return every published table by name."""
    return {name: Published.model_validate(table) for name, table in tomllib.loads(FILE.read_text()).items()}

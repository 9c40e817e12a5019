"""Markdown as GitHub and Hugging Face show it, in which a text from outside is no more than text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~&$@!]|(?<![^\W_])_|_(?![^\W_])")
"""Signs that Markdown, or the site that shows it, may read as more than themselves."""
AS_NUMBERS = "|~&$@"
"""Those of them that a backslash before them does not make plain everywhere."""


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(
        lambda sign: f"&#{ord(sign[0])};" if sign[0] in AS_NUMBERS else f"\\{sign[0]}", " ".join(text.split())
    )


def code(text: str) -> str:
    """Return a text on one line as a span of code, in a table too."""
    return f"<code>{escape(text)}</code>"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], left: int | None = None) -> str:
    """Return a table of cells already escaped; the first `left` columns, by default all, to the left, others right."""
    left = len(heading) if left is None else left
    lines = [heading, ["---"] * left + ["---:"] * (len(heading) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str) -> str:
    """Return a text as a block of code, fenced by more backticks than it holds in a row."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"

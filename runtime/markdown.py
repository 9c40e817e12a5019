"""Markdown for GitHub and Hugging Face, with texts from outside escaped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~&$@!]|(?<![^\W_])_|_(?![^\W_])")
"""Characters to which Markdown, or the site that shows it, may give a meaning."""
AS_NUMBERS = "|~&$@"
"""Those of them that a backslash does not escape on every site; they are written as character references."""


def escape(text: str) -> str:
    """Return a text escaped and on one line, so that Markdown shows it literally."""
    return SPECIAL.sub(
        lambda sign: f"&#{ord(sign[0])};" if sign[0] in AS_NUMBERS else f"\\{sign[0]}", " ".join(text.split())
    )


def code(text: str) -> str:
    """Return a text as inline code on one line; it works in a table too."""
    return f"<code>{escape(text)}</code>"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], left: int | None = None) -> str:
    """Return a table of escaped cells. The first `left` columns, by default all, align left, the others right."""
    left = len(heading) if left is None else left
    lines = [heading, ["---"] * left + ["---:"] * (len(heading) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str) -> str:
    """Return a text as a code block; the fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"

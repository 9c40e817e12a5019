"""Plots as <svg> elements that take their colours from the page, so that they follow light and dark."""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

INK, SOFT, LINE = (f"#01020{number}" for number in range(3, 6))
"""Drawn by matplotlib, then replaced by a colour of the page."""
COLOURS = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
}
INCHES = 5.0
"""Width of a plot. Texts of 10 points are readable on a phone, too."""
STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), SOFT),
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10.5,
    "grid.color": LINE,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are shown letter by letter
}
OUTSIDE = re.compile(r'<style.*?</style>|<metadata>.*?</metadata>| xmlns(?::xlink)?="[^"]*"', re.DOTALL)
"""What an <svg> of its own needs, and one inside a page does not."""


def draw(name: str, title: str, inches: float, plot: Callable[[Any], None], *, width: float = INCHES) -> str:
    """Return what `plot` draws on a pair of axes.

    Args:
        name: unique on the page: ids begin with it.
        title: what a screen reader says in place of it.
        inches: its height.
        plot: draws on the axes.
        width: in inches.

    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    file = io.StringIO()
    style: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
        # Of glyphs that its font lacks: the texts are drawn by the browser, in a font that has them.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = Figure(figsize=(width, inches), layout="constrained")
        plot(figure.subplots())
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(file.getvalue(), name, title)


def _for_a_page(svg: str, name: str, title: str) -> str:
    svg = OUTSIDE.sub("", svg[svg.index("<svg") :]).replace("xlink:href", "href")
    svg = re.sub(r'(?<=id=")|(?<=url\(#)|(?<=href="#)', f"{name}-", svg)
    svg = re.sub(r'^<svg (?:width|height)="[^"]*" (?:height|width)="[^"]*"', "<svg", svg)
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()

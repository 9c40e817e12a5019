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
"""Placeholders for colours: matplotlib draws them, and colours of the page replace them."""
COLOURS = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
}
INCHES = 5.0
"""Width of a plot in inches. Text of 10 points stays readable on a phone."""
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
"""Parts that a stand-alone <svg> needs, and an <svg> inside a page does not."""


def draw(name: str, title: str, inches: float, plot: Callable[[Any], None], *, width: float = INCHES) -> str:
    """Return the drawing of `plot` as an <svg> element.

    Args:
        name: unique on the page; all ids begin with it.
        title: the text for screen readers.
        inches: the height in inches.
        plot: draws on matplotlib axes.
        width: the width in inches.

    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    file = io.StringIO()
    style: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
        # matplotlib warns of glyphs that its font lacks. The browser draws the text, in a font that has them.
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

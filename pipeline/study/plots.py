"""Draws the pictures of a study: clean against robust accuracy, and robust accuracy over the search radius."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.methods import METHODS
from pipeline.models import NETWORKS
from pipeline.study import svg
from pipeline.study.results import CLEAN, Group
from pipeline.study.svg import INK

ROBUST = ("aa", "cw", "pgd", "fgsm")
"""Attacks by strength. A picture shows the first that was run for every row, or else the first that was run for any."""
MARKERS = dict(zip(NETWORKS, "o^sDv", strict=False))
BARS: dict[str, Any] = {"capsize": 2, "elinewidth": 1, "linewidth": 1, "alpha": 0.9}
COLOURS = {method: f"C{index}" for index, method in enumerate(METHODS)}


SIZE = (8, 4.5)
"""Inches of a picture."""


@dataclass(frozen=True)
class Picture:
    """A figure as an <svg> in the colours of its page, and as PNG bytes for a file."""

    name: str
    svg: str
    png: bytes


def pictures(groups: Sequence[Group]) -> tuple[Picture, ...]:
    """Draw the pictures that the rows allow: none without an attack, and no radius plot for a single radius."""
    attack = robust_column(groups)
    if attack is None:
        return ()
    drawn = [_picture("accuracy", lambda axes: accuracy_plot(axes, groups, attack))]
    if len({group.radius for group in groups}) > 1:
        drawn.append(_picture("radius", lambda axes: radius_plot(axes, groups, attack)))
    return tuple(drawn)


def robust_column(groups: Sequence[Group]) -> str | None:
    """Return the attack whose accuracy is shown as robustness; None if there is none."""
    for enough in (all, any):
        for attack in ROBUST:
            if groups and enough(attack in group.estimates for group in groups):
                return attack
    return None


def accuracy_plot(axes: Axes, groups: Sequence[Group], attack: str) -> None:
    """Draw clean against robust accuracy, one point per row, with the spread over seeds if there are several."""
    for group in groups:
        if attack not in group.estimates:
            continue
        clean, robust = group.estimates[CLEAN], group.estimates[attack]
        axes.errorbar(
            100 * clean.mean,
            100 * robust.mean,
            xerr=100 * (clean.spread or 0) or None,
            yerr=100 * (robust.spread or 0) or None,
            fmt=MARKERS[group.student],
            color=COLOURS[group.method],
            **BARS,
        )
    axes.set_xlabel("clean accuracy, %")
    axes.set_ylabel(f"accuracy under {attack}, % (bars: spread over seeds)")
    _legend(axes, groups)


def radius_plot(axes: Axes, groups: Sequence[Group], attack: str) -> None:
    """Draw robust accuracy over the search radius, one line per student and method."""
    for student, method in dict.fromkeys((group.student, group.method) for group in groups):
        own = sorted(
            (g for g in groups if (g.student, g.method) == (student, method) and attack in g.estimates),
            key=lambda group: group.radius,
        )
        axes.errorbar(
            [255 * group.radius for group in own],
            [100 * group.estimates[attack].mean for group in own],
            yerr=[100 * (group.estimates[attack].spread or 0) for group in own],
            fmt=MARKERS[student] + "-",
            color=COLOURS[method],
            **BARS,
        )
    axes.set_xlabel("search radius, 1/255")
    axes.set_ylabel(f"accuracy under {attack}, % (bars: spread over seeds)")
    _legend(axes, groups)


def _legend(axes: Axes, groups: Sequence[Group]) -> None:
    """Add a legend: one colour per method, one marker per student."""
    methods, students = (dict.fromkeys(getattr(group, what) for group in groups) for what in ("method", "student"))
    handles: list[Artist] = [Patch(color=COLOURS[method], label=method) for method in methods]
    handles += [
        Line2D([], [], marker=MARKERS[student], linestyle="", color=INK, markerfacecolor="none", label=student)
        for student in students
    ]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)


def _picture(name: str, draw: Callable[[Axes], None]) -> Picture:
    def plot(axes: Axes) -> None:
        axes.grid()
        draw(axes)

    file = io.BytesIO()
    with mpl.rc_context({"font.size": 10, "grid.alpha": 0.3}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        plot(axes)
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    width, height = SIZE
    return Picture(name, svg.draw(name, f"{name} of every row", height, plot, width=width), file.getvalue())

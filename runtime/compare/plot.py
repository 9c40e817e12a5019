"""The layout of a comparison's plot: a group for each figure, with a mark and an interval for each run."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, NamedTuple

from runtime.words import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.compare.comparison import Comparison

LEFT, RIGHT = 96.0, 340.0
"""The horizontal ends of the area for accuracies, in units of the picture. Names are left of it, figures right."""
TOP, ROW, GAP = 6.0, 18.0, 12.0
STEPS = (0.05, 0.1, 0.2)
"""The possible steps between lines of the scale. The first that needs at most MOST_LINES is used, else the last."""
MOST_LINES = 6
MARKS = 4
"""The number of different marks. A fifth run has the mark of the first."""


class Mark(NamedTuple):
    """A run's accuracy under one attack, and the ends of its interval; `kind` is below MARKS."""

    kind: int
    x: float
    y: float
    low: float
    high: float
    text: str


class Group(NamedTuple):
    """The marks of one figure, and the vertical place `y` of its name."""

    name: str
    y: float
    marks: tuple[Mark, ...]


class Line(NamedTuple):
    """A line of the scale."""

    x: float
    text: str


class Plot(NamedTuple):
    """The whole picture. `bottom` is the vertical place of the scale's labels."""

    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    bottom: float


def plot(comparison: Comparison, names: Sequence[str]) -> Plot:
    """Return the plot of the figures `names`, in that order. A group leaves out runs that lack its figure."""
    ends = [end for run in comparison.runs for figure in run.figures if figure.name in names for end in figure.ci95]
    values = scale_of(min(ends, default=0.0), max(ends, default=1.0))
    first, last = values[0], values[-1]

    def place(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - first) / (last - first)

    groups, top = [], TOP
    for name in names:
        known = [(kind, each) for kind, run in enumerate(comparison.runs) for each in run.figures if each.name == name]
        marks = tuple(
            Mark(
                kind % MARKS,
                place(each.value),
                top + ROW * (row + 0.5),
                place(each.ci95[0]),
                place(each.ci95[1]),
                percent(each.value),
            )
            for row, (kind, each) in enumerate(known)
        )
        groups.append(Group(name, top + ROW * len(marks) / 2, marks))
        top += ROW * len(marks) + GAP
    return Plot(tuple(groups), tuple(Line(place(value), f"{100 * value:.0f}") for value in values), top)


def scale_of(low: float, high: float) -> list[float]:
    """Return the values of the lines of a scale that contains both ends."""
    for step in STEPS:
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first < MOST_LINES:
            break
    return [step * number for number in range(first, last + 1)]

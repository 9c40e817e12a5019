"""Where the plot of a comparison draws what: a group a figure, in it a mark a run and the line of its interval."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, NamedTuple

from runtime.words import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.compare.comparison import Comparison

LEFT, RIGHT = 96.0, 340.0
"""Of the plane that accuracies are drawn on, in units of the picture: names stand before it, figures after."""
TOP, ROW, GAP = 6.0, 18.0, 12.0
STEPS = (0.05, 0.1, 0.2)
"""Between lines of the scale; the first that leaves at most MOST_LINES."""
MOST_LINES = 6
MARKS = 4
"""Marks that look different; of more runs, the fifth looks like the first."""


class Mark(NamedTuple):
    """A run's accuracy under one attack, and the ends of its interval; `kind` is below MARKS."""

    kind: int
    x: float
    y: float
    low: float
    high: float
    text: str


class Group(NamedTuple):
    """The marks of one figure; its name stands at `y`."""

    name: str
    y: float
    marks: tuple[Mark, ...]


class Line(NamedTuple):
    """A line of the scale."""

    x: float
    text: str


class Plot(NamedTuple):
    """The whole picture; `bottom` is where the scale is written."""

    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    bottom: float


def plot(comparison: Comparison, names: Sequence[str]) -> Plot:
    """Return the plot of the figures `names`, in that order; a run that lacks one is not in its group."""
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
    """Return the values of the lines of a scale that holds both ends."""
    for step in STEPS:
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first < MOST_LINES:
            break
    return [step * number for number in range(first, last + 1)]

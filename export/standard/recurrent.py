"""Unrolls LSTM, GRU and RNN: one copy of the cell for each step of the sequence.

X [length, batch, input], W [directions, gates * hidden, input], R [directions, gates * hidden, hidden],
B [directions, 2 * gates * hidden], states [directions, batch, hidden]; y [length, directions, batch, hidden].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.graph.graph import Array, Emitter
    from export.standard.part import Part

LONGEST = 1024
"""Steps that are written out: each is some ten nodes."""
LSTM = (b"Sigmoid", b"Tanh", b"Tanh")
GRU = (b"Sigmoid", b"Tanh")
RNN = (b"Tanh",)


class Cell(NamedTuple):
    """One direction's weights, as the matrix products of a step take them.

    Args:
        w: [input, gates * hidden], and its bias
        wb: [gates * hidden].
        r: [hidden, gates * hidden], and its bias
        rb: [gates * hidden].

    """

    w: Array
    wb: Array
    r: Array
    rb: Array


def lstm(emit: Emitter, part: Part) -> list[str] | None:
    """LSTM without peepholes or lengths of its own: gates i, o, f, c."""
    if part.input(7) or part.attribute("input_forget", 0):
        return None
    clipped = _clip(emit, part)

    def step(cell: Cell, x: str, state: list[str]) -> list[str]:
        h, c = state
        gates = clipped(emit("Add", _affine(emit, x, cell.w, cell.wb), _affine(emit, h, cell.r, cell.rb)))
        i, o, f, new = emit.many("Split", [gates, emit.integers([len(cell.r)] * 4)], 4, axis=-1)
        i, o, f = (emit("Sigmoid", gate) for gate in (i, o, f))
        c = emit("Add", emit("Mul", f, c), emit("Mul", i, emit("Tanh", new)))
        return [emit("Mul", o, emit("Tanh", c)), c]

    return _unrolled(emit, part, step, gates=4, states=(5, 6), activations=LSTM)


def gru(emit: Emitter, part: Part) -> list[str] | None:
    """GRU without lengths of its own: gates z, r, h."""
    before, clipped = part.attribute("linear_before_reset", 0), _clip(emit, part)

    def step(cell: Cell, x: str, state: list[str]) -> list[str]:
        (h,), first = state, slice(2 * len(cell.r))
        last = slice(2 * len(cell.r), None)
        given = _affine(emit, x, cell.w[:, first], cell.wb[first])
        both = emit("Sigmoid", clipped(emit("Add", given, _affine(emit, h, cell.r[:, first], cell.rb[first]))))
        z, r = emit.many("Split", [both, emit.integers([len(cell.r)] * 2)], 2, axis=-1)
        if before:
            recalled = emit("Mul", r, _affine(emit, h, cell.r[:, last], cell.rb[last]))
        else:
            recalled = _affine(emit, emit("Mul", r, h), cell.r[:, last], cell.rb[last])
        new = emit("Tanh", clipped(emit("Add", _affine(emit, x, cell.w[:, last], cell.wb[last]), recalled)))
        return [emit("Add", new, emit("Mul", z, emit("Sub", h, new)))]

    return _unrolled(emit, part, step, gates=3, states=(5,), activations=GRU)


def rnn(emit: Emitter, part: Part) -> list[str] | None:
    """RNN without lengths of its own."""
    clipped = _clip(emit, part)

    def step(cell: Cell, x: str, state: list[str]) -> list[str]:
        total = emit("Add", _affine(emit, x, cell.w, cell.wb), _affine(emit, state[0], cell.r, cell.rb))
        return [emit("Tanh", clipped(total))]

    return _unrolled(emit, part, step, gates=1, states=(5,), activations=RNN)


def _unrolled(
    emit: Emitter,
    part: Part,
    step: Callable[[Cell, str, list[str]], list[str]],
    *,
    gates: int,
    states: tuple[int, ...],
    activations: tuple[bytes, ...],
) -> list[str] | None:
    """Emit the steps of every direction; None where the cell is another one, or its length is not known."""
    sizes, cells = part.sizes(0), _cells(part, gates)
    own = tuple(part.attribute("activations", [])) or activations * len(cells)
    another = part.input(4) or own != activations * len(cells) or part.attribute("layout", 0)
    if not cells or sizes is None or sizes[0] is None or sizes[0] > LONGEST or another:
        return None
    apart = emit.many("Split", [part.input(0), emit.integers([1] * sizes[0])], sizes[0], axis=0)
    steps = [emit("Squeeze", one, emit.integers([0])) for one in apart]
    answers, ends = [], []
    for direction, cell in enumerate(cells):
        back = direction == 1 or part.attribute("direction", b"forward") == b"reverse"
        state = [_initial(emit, part, position, direction, steps[0], len(cell.r)) for position in states]
        rows = []
        for x in reversed(steps) if back else steps:
            state = step(cell, x, state)
            rows.append(emit("Unsqueeze", state[0], emit.integers([0, 1])))
        answers.append(_joined(emit, rows[::-1] if back else rows, 0))
        ends.append([emit("Unsqueeze", value, emit.integers([0])) for value in state])
    return [_joined(emit, answers, 1), *(_joined(emit, list(values), 0) for values in zip(*ends, strict=True))]


def _clip(emit: Emitter, part: Part) -> Callable[[str], str]:
    """Return what bounds the operands of a cell's activations, as its attribute `clip` says."""
    bound = part.attribute("clip", 0.0)
    return (lambda value: emit("Clip", value, emit.real(-bound), emit.real(bound))) if bound else lambda value: value


def _cells(part: Part, gates: int) -> list[Cell]:
    """Return the weights of every direction; none where they are not stored."""
    w, r, b = (part.constant(position) for position in (1, 2, 3))
    if w is None or r is None or (part.input(3) and b is None):
        return []
    given = np.zeros((len(r), 2 * gates * r.shape[2])) if b is None else b
    halves = (np.split(row, 2) for row in given)
    return [Cell(w[d].T, wb, r[d].T, rb) for d, (wb, rb) in enumerate(halves)]


def _affine(emit: Emitter, x: str, weight: Array, bias: Array) -> str:
    product = emit("MatMul", x, emit.real(weight))
    return emit("Add", product, emit.real(bias)) if bias.any() else product


def _initial(emit: Emitter, part: Part, position: int, direction: int, x: str, hidden: int) -> str:
    """Return a direction's first state [batch, hidden]: zeros where none is given."""
    if part.input(position):
        return emit("Gather", part.input(position), emit.integers(direction), axis=0)
    rows = emit("ReduceSum", emit("Mul", x, emit.real(0)), emit.integers([1]), keepdims=1)
    return emit("Mul", rows, emit.real(np.zeros((1, hidden))))


def _joined(emit: Emitter, values: list[str], axis: int) -> str:
    return emit("Concat", *values, axis=axis) if len(values) > 1 else emit("Identity", values[0])

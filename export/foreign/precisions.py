"""A foreign model in each requested precision; its own precision is left unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.graph.floating import computes_in, in_float32
from export.graph.passes import prepare, to_bytes
from export.graph.ties import without_ties
from export.precision.candidate import Candidate
from export.precision.table import PRECISIONS
from runtime.errors import BadModel
from runtime.graph.facts import graph_facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnx import ModelProto

    from export.precision.calibrate import Calibration
    from runtime.bundle.manifest import Calibrated


@dataclass(frozen=True)
class Made:
    """A model in one precision.

    Args:
        candidate: the graph in it.
        parent: the fp32 graph that it is, or from which it was made; None for the model in its own precision.
        changes: the changes, in words.
        calibration: the calibration of its ranges.

    """

    candidate: Candidate
    parent: Candidate | None = None
    changes: tuple[str, ...] = ()
    calibration: Calibrated | None = None


def in_precisions(
    model: ModelProto, names: Sequence[str], calibration: Calibration | None, *, differentiable: bool
) -> dict[str, Made]:
    """Return a model in each named precision, by name; by default in its own.

    Args:
        model: behind edgeproof's interface.
        names: keys of `export.precision.table.PRECISIONS`.
        calibration: the images of int8.
        differentiable: whether gradient graphs are wanted.

    Raises:
        BadModel: it is quantised and another precision is requested, or it cannot be converted.
        UsageFault: int8 has no calibration images.

    """
    own, kind = _own_precision(model), computes_in(model)
    if own == "int8" and set(names) - {own}:
        raise BadModel(
            "the model is quantised: it has no fp32 or fp16 graph", hint="pack the model from which it was made too"
        )
    made: dict[str, Made] = {}
    single, simple = None, None
    for name in names or (own,):
        if name == own != "fp32":
            made[name] = Made(Candidate(prepare(model), differentiable))
            continue
        single = single or Candidate(prepare(in_float32(model)), differentiable)
        source = single
        if name != "fp32":
            source = simple = simple or _to_convert(single)
        candidate, calibrated = PRECISIONS[name].make(source, calibration)
        made[name] = Made(candidate, source, tuple(_changes(name, kind, calibrated)), calibrated)
    return made


def _to_convert(single: Candidate) -> Candidate:
    """Return the graph for other precisions: operations that support them, and without ties that they lack."""
    simple = without_ties(single.differentiated.model)
    if simple is single.forward.model:
        return single
    kept = simple is single.differentiated.model
    return Candidate(single.differentiated if kept else prepare(simple), single.differentiable)


def _own_precision(model: ModelProto) -> str:
    """Return the precision of a model: int8 if it quantises anything, in any form."""
    return graph_facts(to_bytes(model)).precision


def _changes(name: str, kind: str, calibrated: Calibrated | None) -> Iterator[str]:
    if name == "fp32":
        if kind != "float32":
            yield f"{kind} converted to float32"
        return
    if calibrated is None:
        yield f"{name} made from it by casts"
        return
    kept = f"; in fp16: {', '.join(calibrated.kept_fp16)}" if calibrated.kept_fp16 else ""
    data = calibrated.data
    yield f"{name} made from it, ranges by {calibrated.method} on {data.n} images of {data.name}{kept}"

"""The announcement of a run: what it will do, and about how long that takes."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from runtime.errors import EdgeproofError
from runtime.estimate.workload import left_of, stages_of, time_passes
from runtime.spec import Gate
from runtime.suite.plan import BLIND
from runtime.terminal.log import is_quiet, log
from runtime.words import percent, points, roughly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.estimate.workload import Speed, Stage
    from runtime.records.request import Request
    from runtime.suite.plan import PlannedAttack
    from runtime.verdict.case import Case

LONG = 600.0
"""From this many seconds on, the announcement explains why an int8 run takes so long."""
FOLLOWS = {"own": "own gradient", "parent": "the fp32 parent's gradient", "none": "no gradient"}


def announce(case: Case, done: Mapping[str, int]) -> None:
    """Log what a run will do, and about how long it takes. `done`: the work of an earlier process (`Journal.done`).

    It times a few passes of the session. If they fail, it says nothing: the run itself will report the error.
    """
    if is_quiet():
        return
    for line in plan_in_words(case):
        log.info(line)
    if not case.plan.attacks:
        return
    try:
        speed = time_passes(case)
    except (EdgeproofError, MemoryError):
        return
    for line in time_in_words(case, left_of(list(stages_of(case)), done), speed):
        log.info(line)


def plan_in_words(case: Case) -> Iterator[str]:
    """Yield lines that name the subject, the attacks and the gate."""
    request = case.request
    shard = f", shard {request.shard}" if request.shard else ""
    where = f"{request.backend}:{request.provider}"
    lent = f", gradients by {request.lender}" if request.gradient_backend else ""
    yield (
        f"verify {case.subject.name} {request.precision} on {where}{lent}: "
        f"{len(case.order)} images{shard}, {request.threat_model}"
    )
    for gradient_from, planned in groupby(case.plan.attacks, key=lambda each: each.gradient_from):
        yield f"  attacks ({FOLLOWS[gradient_from]}): {', '.join(_name(each, request) for each in planned)}"
    yield f"  gate: {gate_in_words(request)}"


def _name(planned: PlannedAttack, request: Request) -> str:
    if planned.is_cascade:
        return f"{planned.name} ({', '.join(stage.name for stage in planned.stages)})"
    added = planned.name in {attack.name for attack in request.added}
    return f"{planned.name} (added: {request.precision} answers in steps)" if added else planned.name


def gate_in_words(request: Request) -> str:
    """Return the gate in words."""
    gate, words = request.gate, []
    if gate == Gate():
        return "none; this run measures"
    if gate.fail_under is not None:
        words.append(f"robust accuracy of at least {percent(gate.fail_under)}")
    if gate.max_drop is not None:
        words.append(f"a drop of at most {points(gate.max_drop)}")
    early = "; the run ends as soon as the gate is decided" if request.until_decided else ""
    return f"{' and '.join(words)}{early}"


def time_in_words(case: Case, stages: Sequence[Stage], speed: Speed) -> Iterator[str]:
    """Yield a line on the most time that the stages take, and for long int8 runs on a CPU a line on why."""
    seconds = {stage.name: speed.of(stage) for stage in stages}
    total = sum(seconds.values())
    slopes = "".join(f", {FOLLOWS[source]} {_milliseconds(each)}" for source, each in speed.gradient.items())
    yield (
        f"  time: at most about {roughly(total)}, less if attacks break images early "
        f"(measured for one image: forward {_milliseconds(speed.forward)}{slopes})"
    )
    facts = case.subject.session.card().facts
    blind = [stage for stage in stages if stage.name.partition("-")[2] == BLIND and stage.name[0].isdigit()]
    if total < LONG or not facts.quantised or case.request.provider != "cpu" or not blind:
        return
    beside = (
        f"; a forward pass takes {speed.forward / speed.parent:.1f} times as long as in fp32" if speed.parent else ""
    )
    share = sum(seconds[stage.name] for stage in blind) / total
    yield (
        f"  int8 on a CPU: Square is {percent(share, 0)} of that, {blind[0].costs.forwards} forward passes an image"
        f"{beside}; --n judges fewer images (docs/precision.md)"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"

"""Checks that a run tests at least what its artifact claims: a smaller eps, or fewer attacks or images, prove less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from runtime.attacks import CASCADES, DEFAULT, any_bounded
from runtime.records.report import CheckResult, Finding
from runtime.spec import Gate
from runtime.suite.plan import BLIND
from runtime.words import radius

if TYPE_CHECKING:
    from runtime.records.request import Claim, Request

ONE_STEP = "fgsm"
"""The attack of a single step. A second step may break an image that survives it."""

WEAK_EVIDENCE = frozenset(
    {"claimed-threat", "one-step", "black-box-only", "enough-images", "clean-above-chance", "repeated-images"}
)
"""Checks that keep a gate from passing but not from failing. Stronger evidence could only break more images, and robust
accuracy cannot exceed clean accuracy."""


def effect(finding: Finding) -> str:
    """Return a finding's effect on the verdict: 'blocking', 'no pass' (a gate may still fail) or 'note'."""
    if not finding.blocking:
        return "note"
    return "no pass" if finding.check in WEAK_EVIDENCE else "blocking"


def check_claim(request: Request) -> tuple[CheckResult, ...]:
    """Return the checks `claimed-threat` and `one-step`: whether the request is enough for its gate."""
    return (_claimed_threat(request), _one_step(request))


def _claimed_threat(request: Request) -> CheckResult:
    """Compare the run with what the artifact claims: its eps, and the attacks and images of its gate."""
    state: Literal["quiet", "found", "not run"]
    if request.gate == Gate():
        state, message = "not run", "not run: no gate was asked for"
    elif request.claim is None:
        state, message = "found", "version 0.1 began this run and did not record what the artifact claims"
    elif short := [*_weaker_threat(request, request.claim), *_less_evidence(request, request.claim)]:
        state, message = "found", "the run is weaker than the artifact's claim: " + "; ".join(short)
    elif request.threat_model.eps == 0:
        state, message = "found", "eps is 0: no image was changed"
    elif not moves_pixels(request.threat_model.eps):
        eps = radius(request.threat_model.eps)
        state, message = "found", f"eps is {eps}, too small for float32: no white pixel was changed"
    else:
        state, message = "quiet", f"the run covers the claimed eps of {radius(request.claim.threat_model.eps)}"
    return CheckResult(
        check="claimed-threat",
        blocking=True,
        state=state,
        message=message,
        hint="leave out --eps, --attacks and --n to judge the claim, or add --no-gate to measure something else",
    )


def moves_pixels(eps: float) -> bool:
    """Return whether a step of eps changes every pixel in float32, also from 1 down, where numbers are 2^-24 apart."""
    return bool(np.float32(1) - np.float32(eps) < 1)


def _weaker_threat(request: Request, claim: Claim) -> list[str]:
    asked, claimed = request.threat_model.eps, claim.threat_model.eps
    return [f"eps is {radius(asked)}, and the claim is {radius(claimed)}"] if asked < claimed else []


def _less_evidence(request: Request, claim: Claim) -> list[str]:
    """Return the attacks and images that the claim needs and the run lacks; nothing if the artifact claims nothing."""
    if claim.n is None and claim.gate == Gate():
        return []
    short, names = [], {attack.name for attack in request.attacks}
    if request.gradients and not (names >= set(DEFAULT) or names & CASCADES.keys()):  # else: `black-box-only`
        short.append(f"the attacks are {', '.join(sorted(names)) or 'none'}, and the claim needs {', '.join(DEFAULT)}")
    if claim.n is not None and request.n < claim.n:
        short.append(f"the run has {request.n} images, and the claim needs {claim.n}")
    return short


def _one_step(request: Request) -> CheckResult:
    """Find a run whose only gradient attack takes one step. Square beside it is as weak as Square alone."""
    led = {attack.name for attack in request.attacks if any_bounded([attack.name])} - {BLIND}
    alone = led == {ONE_STEP} and not (request.accept_blind_evidence and request.all_attacks.keys() & {BLIND})
    state: Literal["quiet", "found", "not run"] = "not run" if request.gate == Gate() else "found" if alone else "quiet"
    messages = {
        "not run": "not run: no gate was asked for",
        "found": f"{ONE_STEP} is the only attack with a gradient, and one step is no evidence of robustness",
        "quiet": "an attack of more than one step ran",
    }
    return CheckResult(
        check="one-step", blocking=True, state=state, message=messages[state], hint=f"--attacks {','.join(DEFAULT)}"
    )

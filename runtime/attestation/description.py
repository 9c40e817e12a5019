"""An attestation in words, as `inspect` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.attestation.statement import check_subjects, read_attestation
from runtime.words import percent, points, radius

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.bundle.opening import Bundle
    from runtime.bundle.signing import Trust


def described(path: Path, trust: Trust | None, bundle: Bundle | None) -> Iterator[str]:
    """Yield the lines that describe an attestation.

    Args:
        path: of the attestation.
        trust: the keys that may have signed it. None: the signature is not checked, and a line says so.
        bundle: the bundle that it must be about; None for any.

    Raises:
        BadAttestation: it is not valid, or is about another bundle.

    """
    attestation = read_attestation(path, trust)
    if bundle:
        check_subjects(path, attestation, bundle)
    figures = attestation.figures
    yield f"attestation: {attestation.result}, {figures.verdict}: {figures.name} version {figures.version}"
    for name, digest in attestation.subjects.items():
        yield f"  {digest}  {name}"
    yield f"{figures.precision} on {figures.backend}/{figures.provider}, {figures.device.get('cpu', 'unknown')}"
    yield (
        f"robust accuracy {percent(figures.robust_accuracy)} ({percent(figures.low)} to {percent(figures.high)}; "
        f"attacks may have missed up to {points(figures.may_hide)}) on {figures.data.n} images of {figures.data.name}"
    )
    attacks = ", ".join(dict.fromkeys(attack.name for attack in figures.attacks if not attack.cascade))
    yield f"{figures.threat_model.norm}, eps {radius(figures.threat_model.eps)}, by {attacks}, on {figures.measured}"
    yield from (f"failed: {name}" for name in attestation.failed)
    yield f"signed with key {attestation.key}" if attestation.key else "not authenticated: no --trust given"
    yield "it is of this bundle, and of the graph that ships" if bundle else "no bundle was named to compare it with"

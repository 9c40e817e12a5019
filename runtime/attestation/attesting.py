"""What `verify --attest` adds to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.attestation.statement import ATTESTATION, attest
from runtime.errors import UsageFault
from runtime.files import write_atomic
from runtime.records.report import REPORT
from runtime.spec import Gate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from runtime.bundle.opening import Bundle
    from runtime.verdict.case import Run
    from runtime.verdict.options import VerifyOptions

    Write = Callable[[Path, Run], list[str]]


def check_attestable(bundle: Bundle, options: VerifyOptions, resumed: Path | None, *, several: bool = False) -> None:
    """Refuse, before any work, a run whose verdict is not to be signed.

    Args:
        bundle: what is judged.
        options: what is asked of it.
        resumed: the run to go on with.
        several: whether it is one of several runs.

    Raises:
        UsageFault: it is of a model file, a shard, one of `several` runs, without a gate, or finished already.

    """
    if bundle.path.is_file():
        raise UsageFault(
            f"--attest signs the verdict of a bundle, and {bundle.path} is a model", hint="`edgeproof pack` makes one"
        )
    if several:
        raise UsageFault("--attest is of one run, and --on and --precision ask for several", hint="a command for each")
    if options.shard:
        raise UsageFault("--attest signs a verdict of all images, and --shard judges a part", hint="leave out --shard")
    if options.gate_or(bundle.manifest.gate) == Gate():
        raise UsageFault("--attest needs a verdict, and no gate is asked for", hint="--fail-under 45%")
    if resumed and (resumed / REPORT).exists():
        raise UsageFault(
            f"{resumed} is finished already: what an earlier process left there is not signed",
            hint="begin again in another --out",
        )


def attested(bundle: Bundle, key: EllipticCurvePrivateKey, formats: Write) -> Write:
    """Return what writes the attestation of a run, which is made of what lies in memory, and then its formats."""

    def write(out: Path, run: Run) -> list[str]:
        write_atomic(out / ATTESTATION, attest(run.report, bundle, key))
        return formats(out, run)

    return write

"""`verify --attest`: which runs may be attested, and when the attestation is written."""

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
    """Refuse, before any work, a run whose verdict must not be signed.

    Args:
        bundle: what the run judges.
        options: of the run.
        resumed: the directory of the run to resume, if any.
        several: whether the command starts several runs.

    Raises:
        UsageFault: the run judges a model file or a shard, is one of several, has no gate, or is already finished.

    """
    if bundle.path.is_file():
        raise UsageFault(
            f"--attest signs the verdict of a bundle, but {bundle.path} is a model",
            hint="make a bundle with `edgeproof pack`",
        )
    if several:
        raise UsageFault(
            "--attest signs one run, but --on and --precision ask for several", hint="run a command for each"
        )
    if options.shard:
        raise UsageFault("--attest signs a verdict on all images, but --shard judges a part", hint="leave out --shard")
    if options.gate_or(bundle.manifest.gate) == Gate():
        raise UsageFault("--attest needs a verdict, but there is no gate", hint="set one, such as --fail-under 45%")
    if resumed and (resumed / REPORT).exists():
        raise UsageFault(
            f"{resumed} is finished already, and results of an earlier process are not signed",
            hint="begin again in another --out",
        )


def attested(bundle: Bundle, key: EllipticCurvePrivateKey, formats: Write) -> Write:
    """Return a function that writes a run's attestation, from the report in memory, and then the other formats."""

    def write(out: Path, run: Run) -> list[str]:
        write_atomic(out / ATTESTATION, attest(run.report, bundle, key))
        return formats(out, run)

    return write

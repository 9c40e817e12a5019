"""A verdict as an in-toto statement with the predicate test-result v0.1, in a DSSE envelope (docs/adr/0059).

The subjects are files: the bundle's manifest, the graph that was attacked and, for TensorRT, the engine. The tests are
the gates and the checks. The figures are annotations of the descriptor of report.json, where the format has room.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from cryptography.exceptions import InvalidSignature
from pydantic import Field

from runtime.attestation.figures import Figures, figures_of
from runtime.bundle.dsse import Digests, Envelope, Exact, Foreign, StatementType, only, parse, seal
from runtime.bundle.manifest import MANIFEST
from runtime.bundle.signing import fingerprint
from runtime.errors import BadAttestation
from runtime.files import sha256
from runtime.records.report import REPORT
from runtime.report.junit import gate_cases
from runtime.spec import Text, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from runtime.bundle.opening import Bundle
    from runtime.bundle.signing import Trust
    from runtime.records.report import Report

ATTESTATION = "attestation.json"
LARGEST = 2**20
"""The most bytes that an attestation may have."""
PredicateType = Literal["https://in-toto.io/attestation/test-result/v0.1"]
Result = Literal["PASSED", "WARNED", "FAILED"]
ENGINE = "engine"
JUDGE_AGAIN = "ask whoever judged it for the attestation again, or judge it yourself: edgeproof verify --attest KEY"
REFUSED = partial(BadAttestation, hint=JUDGE_AGAIN)


@dataclass(frozen=True)
class Attestation:
    """The content of an attestation.

    `key` is the fingerprint of the key that signed it; None if that was not checked. `subjects` are digests by name.
    """

    key: str | None
    subjects: dict[str, str]
    result: Result
    failed: tuple[str, ...]
    figures: Figures


def attest(report: Report, bundle: Bundle, key: EllipticCurvePrivateKey) -> bytes:
    """Return the bytes of a run's attestation.

    Args:
        report: of the run.
        bundle: that the run judged.
        key: a private key on the curve P-256.

    Raises:
        BadInput: the run has no verdict; see `figures_of`.

    """
    figures, tests = figures_of(report), named_tests(report)
    artifact, manifest = report.artifact, bundle.manifest
    subjects = {
        MANIFEST: sha256(bundle.read(MANIFEST)),
        manifest.graphs[artifact.precision].forward: artifact.sha256,
        **({ENGINE: artifact.engine_sha256} if artifact.engine_sha256 else {}),
    }
    statement = {
        "_type": only(StatementType),
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": only(PredicateType),
        "predicate": {
            "result": result_of(report, tests["warnedTests"]),
            "configuration": [
                {
                    "name": REPORT,
                    "digest": {"sha256": sha256(to_json(report))},
                    "mediaType": "application/json",
                    "annotations": figures.model_dump(mode="json", by_alias=True),
                },
                {"name": report.data.name, "digest": {"sha256": report.data.sha256}},
            ],
            **tests,
        },
    }
    payload = json.dumps(statement, indent=2, sort_keys=True, allow_nan=False).encode()
    return (json.dumps(seal(payload, key, fingerprint(key.public_key())), indent=2) + "\n").encode()


def named_tests(report: Report) -> dict[str, list[str]]:
    """Return the names of gates and checks, in the lists of the predicate.

    An undecided gate is listed as failed, because the predicate counts a warned test as passed.
    """
    gates, checks = gate_cases(report), [check for check in report.checks if check.state != "not run"]
    found = [check for check in checks if check.state == "found"]
    return {
        "passedTests": [
            *(f"gate: {case.name}" for case in gates if not case.outcome),
            *(f"check: {check.check}" for check in checks if check.state == "quiet"),
        ],
        "warnedTests": [f"check: {check.check}" for check in found if not check.blocking],
        "failedTests": [
            *(f"gate: {case.name}" for case in gates if case.outcome),
            *(f"check: {check.check}" for check in found if check.blocking),
        ],
    }


def result_of(report: Report, warned: list[str]) -> Result:
    """Return the result. Only the verdict `passed` gives PASSED or WARNED."""
    if report.verdict != "passed":
        return "FAILED"
    return "WARNED" if warned else "PASSED"


def read_attestation(path: Path, trust: Trust | None) -> Attestation:
    """Read an attestation. With `trust`, the statement is parsed only after its signature was verified.

    Args:
        path: of the file.
        trust: the keys of which one must have signed it. None: the signature is not checked.

    Raises:
        BadAttestation: it is empty, too large, malformed or contradictory, states something other than a verdict, is
            signed with another key, or its signature is not valid.

    """
    with path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise BadAttestation(f"{path} has more than {LARGEST} bytes", hint=JUDGE_AGAIN)
    envelope = parse(Envelope, raw, f"{path} is no attestation", REFUSED)
    key = None if trust is None else _signer(path, envelope, trust)
    statement = parse(_Statement, envelope.payload, f"{path} says something else than a verdict", REFUSED)
    predicate = statement.predicate
    figures = predicate.configuration[0].annotations
    subjects = {subject.name: subject.digest.sha256 for subject in statement.subject}
    if len(subjects) != len(statement.subject):
        raise BadAttestation(f"{path} names a subject twice", hint=JUDGE_AGAIN)
    if (figures.verdict == "passed") != (predicate.result != "FAILED") or (
        predicate.failed_tests and predicate.result != "FAILED"
    ):
        raise BadAttestation(f"{path} contradicts itself: {predicate.result}, {figures.verdict}", hint=JUDGE_AGAIN)
    return Attestation(key, subjects, predicate.result, predicate.failed_tests, figures)


def _signer(path: Path, envelope: Envelope, trust: Trust) -> str:
    """Return the fingerprint of the trusted key that signed the envelope, which names the key to try."""
    named = envelope.signatures[0].keyid
    key = trust.keys.get(named)
    if key is None:
        raise BadAttestation(
            f"{path} was signed with another key; {trust.path} holds {', '.join(known[:16] for known in trust.keys)}",
            hint="trust that key only if you know whose it is",
        )
    try:
        envelope.check(key)
    except InvalidSignature:
        raise BadAttestation(f"{path}: the signature does not hold", hint=JUDGE_AGAIN) from None
    return named


def check_subjects(path: Path, attestation: Attestation, bundle: Bundle) -> None:
    """Check that an attestation is about this bundle, and about the graph that ships.

    Raises:
        BadAttestation: it is about another bundle, version or precision.

    """
    manifest, subjects, figures = bundle.manifest, attestation.subjects, attestation.figures
    shipped = manifest.graphs[manifest.ships].forward
    if subjects.get(MANIFEST) != sha256(bundle.read(MANIFEST)):
        raise BadAttestation(
            f"{path} is about another bundle than {bundle.path}: {figures.name} version {figures.version}",
            hint=JUDGE_AGAIN,
        )
    if figures.precision != manifest.ships or subjects.get(shipped) != manifest.files[shipped].sha256:
        raise BadAttestation(
            f"{path} is about {figures.precision}, but {bundle.path} ships {manifest.ships}", hint=JUDGE_AGAIN
        )


class _Subject(Foreign):
    name: Exact
    digest: Digests


class _Report(Foreign):
    name: Literal["report.json"]
    digest: Digests
    annotations: Figures


class _Images(Foreign):
    digest: Digests


class _Predicate(Foreign):
    result: Result
    configuration: tuple[_Report, _Images]
    failed_tests: tuple[Text, ...]


class _Statement(Foreign):
    type_: StatementType = Field(alias="_type")
    predicate_type: PredicateType
    subject: Annotated[tuple[_Subject, ...], Field(min_length=2, max_length=3)]
    predicate: _Predicate

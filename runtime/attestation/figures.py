"""The figures of a run in its attestation, on which a policy decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from runtime.attacks import any_bounded
from runtime.errors import BadInput
from runtime.report.phrases import attack_names
from runtime.spec import DataRecord, Digest, Document, Fraction, Frozen, Gate, Name, ProviderName, Text, ThreatModel
from runtime.verdict.figures import hidden_in
from runtime.words import moment

if TYPE_CHECKING:
    from runtime.records.report import Report


def _time(text: str) -> str:
    """Accept a text in the format of `runtime.words.timestamp`."""
    moment(text)
    return text


Time = Annotated[Text, AfterValidator(_time)]
Settings = dict[Text, int | float]


class AttackFigure(Frozen):
    """An attack and its settings. `attacked` counts the images attacked; accuracy is a fraction of all images."""

    name: Text
    cascade: bool
    gradient: Text
    settings: Settings
    attacked: Annotated[int, Field(ge=0)]
    accuracy: Fraction


class Figures(Frozen):
    """The figures of one run.

    `low` and `high` are the ends of the 95 % interval of robust accuracy. `may_hide` is the robust accuracy that the
    attacks may have overstated without a check noticing (docs/adr/0043); `at_least` subtracts it. `correct` counts
    the images that were classified correctly before any attack. `measured` is when the run began.
    """

    schema_: Literal["edgeproof.attestation/1"] = Field(alias="schema", default="edgeproof.attestation/1")
    verdict: Literal["passed", "failed", "inconclusive"]
    name: Name
    version: Annotated[int, Field(ge=1)]
    precision: Name
    backend: Name
    provider: ProviderName
    threat_model: ThreatModel
    data: DataRecord
    correct: Annotated[int, Field(ge=0)]
    robust_accuracy: Fraction
    low: Fraction
    high: Fraction
    may_hide: Fraction
    attacks: Annotated[tuple[AttackFigure, ...], Field(min_length=1)]
    gate: Gate
    request_sha256: Digest
    device: Document
    software: dict[Text, Text]
    measured: Time

    @model_validator(mode="after")
    def _hold_together(self) -> Figures:
        """Refuse figures that no run can have.

        Raises:
            ValueError: the robust accuracy is outside its interval, or above that of a single attack; or more images
                were correct or robust than is possible.

        """
        if not self.low <= self.robust_accuracy <= self.high:
            raise ValueError("the robust accuracy lies outside of its interval")
        if self.robust_accuracy > min((attack.accuracy for attack in self.attacks if not attack.cascade), default=0.0):
            raise ValueError("the robust accuracy is above what an attack left")
        if self.correct > self.data.n or self.robust_accuracy * self.data.n > self.correct + 0.5:
            raise ValueError("more images are robust than correct, or more are correct than there are")
        return self

    @property
    def at_least(self) -> float:
        """The robust accuracy that the run shows: the low end of its interval minus `may_hide`."""
        return self.low - self.may_hide


def figures_of(report: Report) -> Figures:
    """Return the figures of a report.

    Raises:
        BadInput: the report has no verdict on robust accuracy, or is not about a bundle.

    """
    artifact, robust = report.artifact, report.robust_accuracy
    if report.verdict not in ("passed", "failed", "inconclusive") or robust is None or artifact.bundle_version is None:
        raise BadInput("this run has no verdict to attest", hint="judge a bundle by a gate: --fail-under 45%")
    labels = [row.label for row in report.attacks]
    return Figures(
        verdict=report.verdict,
        name=artifact.name,
        version=artifact.bundle_version,
        precision=artifact.precision,
        backend=artifact.backend,
        provider=artifact.provider,
        threat_model=report.threat_model,
        data=report.data,
        correct=report.clean.correct,
        robust_accuracy=robust.value,
        low=robust.ci95[0],
        high=robust.ci95[1],
        may_hide=hidden_in(robust, labels, report.blind_control, report.gradient_test).points,
        attacks=_attacks(report),
        gate=report.gate,
        request_sha256=report.request_sha256,
        device=report.device,
        software=report.software,
        measured=report.started,
    )


def _attacks(report: Report) -> tuple[AttackFigure, ...]:
    """Return the attacks that stay within eps. A stage is named after its cascade, and has the cascade's settings."""
    settings = report.request.all_attacks
    return tuple(
        AttackFigure(
            name=name if row.cascade else row.name,
            cascade=row.cascade,
            gradient=row.gradient,
            settings=settings.get(name.partition(":")[0] if row.cascade else row.name, {}),
            attacked=row.attacked,
            accuracy=row.accuracy,
        )
        for row, name in zip(report.attacks, attack_names(report), strict=True)
        if any_bounded([row.name])
    )

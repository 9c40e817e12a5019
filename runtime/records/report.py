"""report.json, schema edgeproof.report/1: the results of a run, which `compare` and `--against` read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, model_validator

from runtime.errors import BadData
from runtime.records.measurements import (
    Agreement,
    AttackRow,
    Count,
    CurvePoint,
    Fusion,
    GradientTest,
    Interval,
    Probe,
    Searched,
)
from runtime.records.request import Request
from runtime.session import GraphFacts
from runtime.spec import (
    PARENT,
    DataRecord,
    Digest,
    Document,
    Fraction,
    Frozen,
    Gate,
    JudgeCommand,
    Name,
    ProviderName,
    Text,
    ThreatModel,
    first_fault,
)
from runtime.statistics import Verdict

if TYPE_CHECKING:
    from pathlib import Path

REPORT, SHARD = "report.json", "shard.json"


class Model(Frozen):
    """Facts about the model from its bundle; null if the bundle does not have them.

    `weights` counts the parameters, in the parent's graph if there is one, because an int8 graph has scales too.
    `sizes` has the bytes of each precision's graph. `ships` is the precision for the device. `image` is (channels,
    height, width). `teacher` and `teacher_architecture` are null if the method has no teacher.
    """

    architecture: Text | None = None
    method: Text | None = None
    teacher: Text | None = None
    teacher_architecture: Text | None = None
    weights: Count | None = None
    sizes: dict[Name, Count] = Field(default_factory=dict)
    ships: Name
    image: tuple[Count, Count, Count]


class Artifact(Frozen):
    """The artifact that was attacked. `facts` are those of its graph, which decided the attacks.

    `backend` and `provider` judged every point. `gradient_backend` and `gradient_provider` lent the gradients; None if
    the judge did. `judge_command` is the process that judged, if there was one. `origin` is the address from which the
    artifact was fetched, with the commit. `model` is null if no bundle has facts, and in reports of earlier versions.
    """

    name: Name
    sha256: Digest
    engine_sha256: Digest | None
    precision: Name
    backend: Name
    provider: ProviderName
    provider_library_sha256: Digest | None = None
    gradient_backend: Name | None = None
    gradient_provider: ProviderName | None = None
    judge_command: JudgeCommand | None = None
    tf32: bool = False
    bundle_version: int | None
    authenticated: bool
    origin: Text | None = None
    facts: GraphFacts = GraphFacts()
    model: Model | None = None

    @property
    def lender(self) -> str | None:
        """The lender of the gradients, such as ort/cpu; None if it was the judge."""
        return f"{self.gradient_backend}/{self.gradient_provider}" if self.gradient_backend else None

    @property
    def engines(self) -> str:
        """The judge, and the lender if it was another engine, in words."""
        judge = f"{self.backend}/{self.provider}"
        return f"{judge}, gradients by {self.lender}" if self.lender else judge

    @model_validator(mode="before")
    @classmethod
    def _named_by_earlier_versions(cls, given: Any) -> Any:
        """Add facts to reports of earlier versions, in which only the graph's name decided the attacks."""
        if not isinstance(given, dict) or "facts" in given:
            return given
        return {**given, "facts": GraphFacts(quantised=given.get("precision") == "int8")}


class Accuracy(Frozen):
    """A fraction of n images, and its 95 % interval (Wilson)."""

    value: Fraction
    ci95: Interval


class Clean(Frozen):
    """Accuracy without any attack."""

    n: Count
    correct: Count
    accuracy: Fraction
    ci95: Interval


class ClassRow(Frozen):
    """Accuracies on the images of one class; null if it has no images."""

    label: Count
    name: Text
    n: Count
    clean: Fraction | None
    robust: Fraction | None


class Paired(Frozen):
    """A comparison with another run on the same images. `difference` is this run minus that; a drop is negative.

    `mcnemar_p` is null if the run stopped early, because it is valid only for a number of images fixed beforehand.
    """

    against: Text
    both: Count
    only_this: Count
    only_that: Count
    neither: Count
    difference: float
    ci95: Interval
    mcnemar_p: float | None

    @property
    def n(self) -> int:
        """The number of images that both runs attacked."""
        return self.both + self.only_this + self.only_that + self.neither


class Finding(Frozen):
    """A check that found something, with what to do about it."""

    check: Text
    blocking: bool
    message: Text
    hint: Text


class CheckResult(Finding):
    """The result of a check."""

    state: Literal["quiet", "found", "not run"]


class Sequential(Frozen):
    """A run that took images in random order until its gate was decided: how many it judged, and why it stopped.

    The intervals of robust accuracy and of the paired difference are confidence sequences at `alpha`, which are valid
    at any stop. Those of single attacks are Wilson's, and are not.
    """

    alpha: Fraction
    judged: Count
    of: Count
    decided: bool
    reason: Text


class Circumstances(Frozen):
    """What was attacked, where and when. `seconds` adds up all processes of a run that was resumed."""

    artifact: Artifact
    classes: tuple[Text, ...]
    device: Document
    software: dict[Text, Text]
    started: Text
    seconds: float


class ShardRecord(Frozen):
    """shard.json: the results of one shard besides its evidence. `runtime.records.totals` adds shards up.

    `smoothed_control`: what smoothed gradients broke of the images that the blind control left. Only merge can tell
    whether it counts.
    """

    schema_: Literal["edgeproof.shard/1"] = Field(alias="schema", default="edgeproof.shard/1")
    request_sha256: Digest
    circumstances: Circumstances
    attacks: tuple[AttackRow, ...]
    eps_curve: tuple[CurvePoint, ...]
    far: CurvePoint | None
    agreement: Agreement | None
    parent_agreement: Agreement | None = None
    probe: Probe | None
    gradient_test: GradientTest | None = None
    blind_control: Searched | None = None
    smoothed_control: Searched | None = None
    square_alone: Searched | None = None
    fusion: Fusion | None = None
    paired: Paired | None


class Report(Frozen):
    """report.json. `robust_accuracy` is null if no attack ran.

    `agreement` is of the artifact's own gradient graph, `parent_agreement` of its fp32 parent's; null if no attack
    followed that graph.
    `lattice` is the worst case after the same points were rounded to bytes; null if that was not requested.
    `blind_control` is null without a gate, and `square_alone` if Square was not among the attacks.
    `warnings` are the checks that found something; `checks` are all of them.
    """

    schema_: Literal["edgeproof.report/1"] = Field(alias="schema", default="edgeproof.report/1")
    verdict: Verdict
    reasons: tuple[Text, ...]
    gate: Gate
    artifact: Artifact
    data: DataRecord
    threat_model: ThreatModel
    request: Request
    request_sha256: Digest
    seed: int
    clean: Clean
    attacks: tuple[AttackRow, ...]
    robust_accuracy: Accuracy | None
    lattice: Accuracy | None = None
    sequential: Sequential | None = None
    per_class: tuple[ClassRow, ...]
    confusion: tuple[tuple[Count, ...], ...]
    eps_curve: tuple[CurvePoint, ...]
    paired: Paired | None
    agreement: Agreement | None
    parent_agreement: Agreement | None = None
    gradient_test: GradientTest | None = None
    blind_control: Searched | None = None
    square_alone: Searched | None = None
    fusion: Fusion | None = None
    warnings: tuple[Finding, ...]
    checks: tuple[CheckResult, ...] = ()
    device: Document
    software: dict[Text, Text]
    started: Text
    seconds: float

    @property
    def stricter_gate(self) -> Gate | None:
        """The bundle's own gate if the run's gate asks less; else None. For the parent, a drop does not count."""
        gate, own = self.gate, self.request.claim.gate if self.request.claim else Gate()
        less = own.fail_under is not None and (gate.fail_under is None or gate.fail_under < own.fail_under)
        if self.artifact.precision != PARENT and own.max_drop is not None:
            less = less or gate.max_drop is None or gate.max_drop > own.max_drop
        return own if less else None


def load_report(directory: Path) -> Report:
    """Read report.json of a run directory.

    Raises:
        BadData: the file is missing, damaged or of another schema.

    """
    return read_report(directory / REPORT)


def read_report(path: Path) -> Report:
    """Read a report.json at any path; raises as `load_report` does."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        is_shard = (path.parent / SHARD).exists()
        hint = (
            "it is a shard: `edgeproof merge` makes a run of all" if is_shard else "name the --out of a finished verify"
        )
        raise BadData(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    except ValidationError as error:
        raise BadData(f"{path}: {first_fault(error)}", hint="it is damaged, or made by another version") from None

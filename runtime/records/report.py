"""report.json, schema edgeproof.report/1: what a run says, as `compare` and `--against` read it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from runtime.errors import BadData
from runtime.records.request import GradientSource, Request, labelled
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

Count = Annotated[int, Field(ge=0)]
Interval = tuple[float, float]


class Model(Frozen):
    """What the bundle says of the model; null where it does not say.

    `weights` counts the numbers that the graph keeps, of the parent's graph where there is one: an int8 graph keeps
    scales too. `sizes` are bytes of each precision's graph, `ships` the precision that goes to the device. `image` is
    (channels, height, width). `teacher` and `teacher_architecture` are null where the method has no teacher.
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
    """What was attacked; `facts` are what its graph says of itself, which decided how.

    `backend` and `provider` judged every point; `gradient_backend` and `gradient_provider` lent the gradients that
    attacks followed, None where the judge did. `judge_command` is a process that judged.
    `origin` is where it was fetched from, with the commit. `model` is null where no bundle says what it is, and in
    reports of earlier versions.
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
        """What lent the gradients, as ort/cpu, where it was not the judge."""
        return f"{self.gradient_backend}/{self.gradient_provider}" if self.gradient_backend else None

    @property
    def engines(self) -> str:
        """What judged, and what lent the gradients where that was another, in words."""
        judge = f"{self.backend}/{self.provider}"
        return f"{judge}, gradients by {self.lender}" if self.lender else judge

    @model_validator(mode="before")
    @classmethod
    def _named_by_earlier_versions(cls, given: Any) -> Any:
        """Earlier versions wrote no facts: what decided was what the graph was called."""
        if not isinstance(given, dict) or "facts" in given:
            return given
        return {**given, "facts": GraphFacts(quantised=given.get("precision") == "int8")}


class Accuracy(Frozen):
    """A fraction of n and its 95 % interval (Wilson)."""

    value: Fraction
    ci95: Interval


class Clean(Frozen):
    """Accuracy without any attack."""

    n: Count
    correct: Count
    accuracy: Fraction
    ci95: Interval


class AttackRow(Frozen):
    """One attack on all correctly classified images; accuracy is a fraction of n. Costs count images.

    With `cascade`, on those that the earlier rows of its cascade left; the row that sums them up comes after them.
    `gradient` 'own' is of the artifact's gradient graph, whichever engine ran it: `Artifact.lender` names another.
    """

    name: Text
    cascade: bool
    gradient: GradientSource
    attacked: Count
    broken: Count
    accuracy: Fraction
    ci95: Interval
    seconds: float
    forwards: Count
    gradients: Count

    @property
    def label(self) -> str:
        """Its name, and whose gradient it followed where that was not the artifact's."""
        return labelled(self.name, self.gradient)


class ClassRow(Frozen):
    """Accuracy on the images of one class; null where it has none."""

    label: Count
    name: Text
    n: Count
    clean: Fraction | None
    robust: Fraction | None


class CurvePoint(Frozen):
    """Accuracy under PGD-10 at one eps, on n images drawn at random."""

    eps: float
    n: Count
    accuracy: Fraction


class Paired(Frozen):
    """The same images under another run: `difference` is this less that, negative is a drop.

    `mcnemar_p` is null where the run stopped early: it holds for a number of images fixed beforehand.
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
        """Images that both runs attacked."""
        return self.both + self.only_this + self.only_that + self.neither


class Agreement(Frozen):
    """Points, clean and adversarial, and on how many the gradient graph predicts what the artifact does.

    `near`: on how many of the `images` the logits are the same, but for rounding, at these points, and at the
    end of a step by most of eps; both null where an engine of ours judged.
    """

    n: Count
    same_prediction: Count
    near: Count | None = None
    images: Count | None = None


class Probe(Frozen):
    """The sample asked several times: images whose answers differ, and images answered with probabilities.

    `otherwise_alone`: images that are answered otherwise in a batch than by themselves.
    """

    n: Count
    randomised: Count
    probabilities: Count
    otherwise_alone: Count = 0


class GradientTest(Frozen):
    """Images of the sample that stood, on which the gradient that is followed was held to the artifact; and failures.

    It is the artifact's own, or its parent's where it has none.

    `apart_near` and `apart_far`: over a short and a long step the gradient does not predict what the artifact does.
    `unsteady`: it turns when the image moves a little. `jumps`: of so many `lines` between two images, where the
    artifact changes its class without a slope that leads there. Null: not asked, since the gradient is a `surrogate`.
    `unrelated`: of a surrogate alone, it has nothing to do with what the artifact does over a wide step.
    """

    n: Count
    surrogate: bool = False
    apart_near: Count | None = None
    apart_far: Count
    unrelated: Count | None = None
    unsteady: Count | None = None
    lines: Count | None = None
    jumps: Count | None = None


class Searched(Frozen):
    """Searches without gradients on n images that stood the attacks with gradients.

    `broken` fell to one of the searches, which `by` counts; `alone` stood the attacks with gradients from another start
    too. Costs count images.
    """

    n: Count
    broken: Count
    alone: Count
    by: dict[Text, Count]
    seconds: float
    forwards: Count
    gradients: Count


class Fusion(Frozen):
    """Images classified with the engine's optimisations and without them.

    On `same_prediction` of n both answer the same class; `only_optimised` and `only_plain` of them are correct once.
    """

    n: Count
    same_prediction: Count
    only_optimised: Count
    only_plain: Count


class Finding(Frozen):
    """A check that found something, and what to do."""

    check: Text
    blocking: bool
    message: Text
    hint: Text


class CheckResult(Finding):
    """A check before a figure is believed, and how it went."""

    state: Literal["quiet", "found", "not run"]


class Sequential(Frozen):
    """A run that took images in random order until its gate was decided: how far it went, and why it stopped.

    The intervals of robust accuracy and of the paired difference are confidence sequences at `alpha`, which hold
    at any stop; those of single attacks are Wilson's, and do not.
    """

    alpha: Fraction
    judged: Count
    of: Count
    decided: bool
    reason: Text


class Circumstances(Frozen):
    """What was attacked, where and when; seconds are those of all processes that had a part in it."""

    artifact: Artifact
    classes: tuple[Text, ...]
    device: Document
    software: dict[Text, Text]
    started: Text
    seconds: float


class ShardRecord(Frozen):
    """shard.json: what one part of a run found, besides its evidence; parts add up (`runtime.records.totals`).

    `smoothed_control`: what smoothed gradients broke of what the blind control left; merge knows whether it counts.
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
    """report.json. `robust_accuracy` is null where no attack ran.

    `agreement` is that of the artifact's own gradient graph, `parent_agreement` that of its fp32 parent's, where they
    led attacks.
    `lattice` is the worst case of the same points rounded to what bytes can say; null where it was not asked for.
    `blind_control` is null where no gate was asked for, `square_alone` where Square was no attack of the run.
    `warnings` are the checks that found something, `checks` all of them.
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
        """The bundle's own gate, where a gate by hand asks less; of the parent, no drop is measured by itself."""
        gate, own = self.gate, self.request.claim.gate if self.request.claim else Gate()
        less = own.fail_under is not None and (gate.fail_under is None or gate.fail_under < own.fail_under)
        if self.artifact.precision != PARENT and own.max_drop is not None:
            less = less or gate.max_drop is None or gate.max_drop > own.max_drop
        return own if less else None


def load_report(directory: Path) -> Report:
    """Read report.json of a run directory.

    Raises:
        BadData: it is missing, damaged or of another schema.

    """
    return read_report(directory / REPORT)


def read_report(path: Path) -> Report:
    """Read a report.json, wherever it lies; raises as `load_report`."""
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

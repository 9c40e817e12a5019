"""run.json: the request of a run, with everything that decides its figures and its verdict."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from runtime.files import sha256
from runtime.records.options import RecordedOptions
from runtime.spec import (
    Command,
    DataRecord,
    Digest,
    Fraction,
    Frozen,
    Gate,
    JudgeCommand,
    Name,
    ProviderName,
    Text,
    ThreatModel,
    to_json,
)

GradientSource = Literal["own", "parent", "none"]
"""The source of an attack's gradient: the artifact itself, its fp32 parent, or none."""


def labelled(name: str, gradient_from: GradientSource) -> str:
    """Return an attack's name, marked if it follows the parent's gradient."""
    return f"{name} (parent)" if gradient_from == "parent" else name


class AttackRequest(Frozen):
    """An attack and its settings. Step sizes are fractions of eps; targets are at most the model's wrong classes.

    The settings of a cascade's stages have the stage's name before them: `apgd-t.targets`.
    """

    name: Text
    settings: dict[Text, int | float]


FIRST_FIELDS = {
    "command", "artifact_sha256", "gradient_sha256", "parent_gradient_sha256", "precision", "backend", "provider",
    "tf32", "data", "n", "threat_model", "attacks", "gradients", "added", "seed", "batch", "gate", "against",
    "save_adversarial", "lattice", "until_decided", "shard",
}  # fmt: skip
"""Fields that every run.json has. A later field is left out at its default, so that the digest of a request without it
stays the same and earlier runs can be read."""


class Claim(Frozen):
    """What an artifact claims: the threat model, its own gate, and the number of images for which that gate was set."""

    threat_model: ThreatModel
    gate: Gate = Gate()
    n: Annotated[int, Field(gt=0)] | None = None


class Request(RecordedOptions):
    """Everything that decides the figures and the verdict, resolved.

    `command` repeats the run; the bundle's path is left open. `against` is the request digest of the run to compare.
    `batch` is the requested size, or by default the one that suits the device. `shard` is the run's part of the images,
    such as 2/5. `attacks` are the requested attacks, which run with each of `gradients` in turn; `added` run besides
    (`runtime.suite.plan`). `backend` and `provider` judge; `provider_library_sha256` is the digest of a plugin's file.
    `gradient_backend` and `gradient_provider` lend the gradients; None if the judge does. `judge_command` is a judge
    process. `claim` is the subject's own claim; None in runs of version 0.1. `expect_clean` is the least clean accuracy
    expected, by the command line or by the subject's training; None if there is none.
    """

    batch: Annotated[int, Field(gt=0)] = 64
    command: Command
    artifact_sha256: Digest
    gradient_sha256: Digest | None = None
    parent_gradient_sha256: Digest | None = None
    precision: Name
    backend: Name
    provider: ProviderName
    provider_library_sha256: Digest | None = None
    gradient_backend: Name | None = None
    gradient_provider: ProviderName | None = None
    judge_command: JudgeCommand | None = None
    tf32: bool = False
    data: DataRecord
    n: Annotated[int, Field(gt=0)]
    threat_model: ThreatModel
    attacks: tuple[AttackRequest, ...]
    gradients: tuple[GradientSource, ...] = ("own",)
    added: tuple[AttackRequest, ...] = ()
    gate: Gate
    against: Digest | None
    claim: Claim | None = None
    expect_clean: Fraction | None = None

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in write(self).items()
            if name in FIRST_FIELDS or getattr(self, name) != fields[name].default
        }

    @property
    def all_attacks(self) -> dict[str, dict[str, int | float]]:
        """The requested and added attacks with their settings, which two runs must share to be compared."""
        return {attack.name: attack.settings for attack in (*self.attacks, *self.added)}

    @property
    def lender(self) -> str:
        """The lender of the gradients, such as ort:cpu."""
        return f"{self.gradient_backend or self.backend}:{self.gradient_provider or self.provider}"

    def digest(self) -> str:
        """Return the SHA-256 of the request in canonical JSON."""
        return sha256(to_json(self))

    def unlike(self, other: Request, *but: str) -> list[str]:
        """Return the fields that differ from `other`'s and decide evidence or verdict, except those in `but`."""
        free = {"command", "batch", *but}
        if self.claim is None or other.claim is None:
            free.add("claim")  # version 0.1 recorded none
        return [
            name for name in type(self).model_fields if name not in free and getattr(self, name) != getattr(other, name)
        ]


class RunRecord(Frozen):
    """run.json: the resolved request and its digest."""

    request: Request
    request_sha256: Digest

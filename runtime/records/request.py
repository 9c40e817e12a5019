"""run.json: what was asked of a run, with everything that decides its figures and its verdict."""

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
"""Whose gradient an attack followed: the artifact's own, its fp32 parent's, or none."""


def labelled(name: str, gradient_from: GradientSource) -> str:
    """Return what tells an attack from the same one by another gradient."""
    return f"{name} (parent)" if gradient_from == "parent" else name


class AttackRequest(Frozen):
    """One attack with the settings it ran with; steps are fractions of eps, targets fit the model's classes.

    Those of a cascade's attacks carry its name: `apgd-t.targets`.
    """

    name: Text
    settings: dict[Text, int | float]


FIRST_FIELDS = {
    "command", "artifact_sha256", "gradient_sha256", "parent_gradient_sha256", "precision", "backend", "provider",
    "tf32", "data", "n", "threat_model", "attacks", "gradients", "added", "seed", "batch", "gate", "against",
    "save_adversarial", "lattice", "until_decided", "shard",
}  # fmt: skip
"""Fields that every run.json has. A later one is left out at its default: the digest of what does not ask for it stays
what it was, and so runs of before can be read."""


class Claim(Frozen):
    """What an artifact claims: the threat that it withstands, its own gate, and the images that this was given for."""

    threat_model: ThreatModel
    gate: Gate = Gate()
    n: Annotated[int, Field(gt=0)] | None = None


class Request(RecordedOptions):
    """Everything that decides the figures and the verdict, resolved.

    `command` repeats the run, with the place of the bundle left open; `against` is the request digest of the
    run compared with; `batch` is what was asked for or, where nothing was, what the device is worth; `shard` is the
    part of the images that a run takes, as 2/5. `attacks` are those asked for, run by each of `gradients` in turn;
    `added` are run besides (`runtime.suite.plan`). `backend` and `provider` judge, by a plugin's file of
    `provider_library_sha256`; `gradient_backend` and `gradient_provider` lend the gradients, None where the judge does;
    `judge_command` is a process that judges. `claim` is what the subject says of itself; None in runs of version 0.1.
    `expect_clean` is the least clean accuracy that is expected of the images, by whoever asks or by the subject's
    training; None where nobody says.
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
        """Those asked for and those added, with their settings: what two runs must share to be compared."""
        return {attack.name: attack.settings for attack in (*self.attacks, *self.added)}

    @property
    def lender(self) -> str:
        """What lent the gradients, as ort:cpu."""
        return f"{self.gradient_backend or self.backend}:{self.gradient_provider or self.provider}"

    def digest(self) -> str:
        """SHA-256 of the request in canonical JSON."""
        return sha256(to_json(self))

    def unlike(self, other: Request, *but: str) -> list[str]:
        """Return the fields that differ in what decides the evidence and the verdict, leaving out those named."""
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

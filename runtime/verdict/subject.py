"""The subject of a verdict, and the resolved request: every default is filled in."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import CASCADES
from runtime.images.uint8_grid import LEVELS, to_levels
from runtime.machine.cuda import accelerator
from runtime.records.options import AUTO, RecordedOptions, command_words
from runtime.records.report import Artifact
from runtime.records.request import AttackRequest, Claim, Request
from runtime.spec import DataRecord, Gate, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runtime.attacks import Attack
    from runtime.attacks.oracle import Witness
    from runtime.images.image_set import ImageSet
    from runtime.records.report import Model
    from runtime.session import Session
    from runtime.spec import JudgeCommand
    from runtime.suite.plan import Plan
    from runtime.verdict.options import VerifyOptions
    from runtime.verdict.paired import Finished


LIBRARIES = ("edgeproof", "numpy", "onnxruntime")


@dataclass(frozen=True)
class Subject:
    """The subject of a verdict: an artifact, opened, with its images and what it claims.

    Args:
        session: the artifact, opened.
        name: of the bundle or run.
        classes: names of the classes, in the order of the logits.
        shape: of one image, (C, H, W).
        images: the evaluation set; its first n images are attacked.
        command: the command that repeats the run, without the options in VerifyOptions.
        threat_model: what it claims to be robust to, and the default of the attacks.
        gate: its own gate, the default of the run.
        claimed_images: the number of images for which its claim was made; None if unknown.
        expected_clean: the least clean accuracy to expect; None if unknown.
        bundle_version: the bundle's version; None without a bundle.
        authenticated: whether a signature was required and is valid.
        origin: the address from which it was fetched; None for a local path.
        libraries: packages whose versions the report lists.
        to_device: turns numpy arrays into the session's.
        parent: opens the same subject in PARENT, the baseline of a drop; None without one.
        lender: the parent's session, whose gradient attacks also follow; None without one.
        witness: a session with the same graph, if a process judges; None if an engine judges.
        model: facts about the model from its bundle; None without a bundle.

    """

    session: Session
    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    images: ImageSet
    command: str
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    gate: Gate = field(default_factory=Gate)
    claimed_images: int | None = None
    expected_clean: float | None = None
    bundle_version: int | None = None
    authenticated: bool = False
    origin: str | None = None
    libraries: tuple[str, ...] = LIBRARIES
    to_device: Callable[[Any], Any] = np.asarray
    parent: Callable[[], Subject] | None = None
    lender: Session | None = None
    witness: Session | None = None
    model: Model | None = None

    @property
    def claim(self) -> Claim:
        """The subject's own claim, whatever the options."""
        return Claim(threat_model=self.threat_model, gate=self.gate, n=self.claimed_images)

    @property
    def judged_by(self) -> dict[str, Any]:
        """The judge, and the lender if it is another engine, as fields of a request and of a report's artifact."""
        card, lender = self.session.card(), self._lending
        return {
            "precision": card.precision,
            "backend": card.backend,
            "provider": card.provider,
            "provider_library_sha256": card.library_sha256,
            "judge_command": card.judge_command,
            "tf32": card.tf32,
        } | ({"gradient_backend": lender[0], "gradient_provider": lender[1]} if lender else {})

    @property
    def artifact(self) -> Artifact:
        """The artifact, as the report records it."""
        card = self.session.card()
        return Artifact(
            name=self.name,
            sha256=card.sha256,
            engine_sha256=card.engine_sha256,
            **self.judged_by,
            bundle_version=self.bundle_version,
            authenticated=self.authenticated,
            origin=self.origin,
            facts=card.facts,
            model=self.model,
        )

    @property
    def accelerators(self) -> dict[str, str]:
        """The judge's device, and the lender's if that is another engine."""
        lender, judge = self._lending, accelerator(self.session.card().device)
        return {**accelerator(lender[2]), **judge, "gradient_accelerator": lender[2]} if lender else judge

    @property
    def _lending(self) -> tuple[str, str, str] | None:
        """The lender's backend, provider and device, for the artifact's gradient or its parent's; None if it judges."""
        card, lender = self.session.card(), self.lender.card() if self.lender else None
        if card.gradient_backend and card.gradient_provider and card.gradient_device:
            return card.gradient_backend, card.gradient_provider, card.gradient_device
        if lender is None or (lender.backend, lender.provider) == (card.backend, card.provider):
            return None
        return lender.backend, lender.provider, lender.device


def witness_of(witness: Session | None, judge: JudgeCommand | None) -> Witness | None:
    """Return the witness as a function; if the judge reads bytes, it rounds the points to bytes first."""
    if witness is None:
        return None
    if judge is None or judge.images == "float32":
        return witness.logits
    return lambda x: witness.logits((to_levels(x) / LEVELS).astype(np.float32))


def resolve(
    subject: Subject, options: VerifyOptions, plan: Plan, gate: Gate, n: int, reference: Finished | None
) -> Request:
    """Return the request with every default filled in.

    Args:
        subject: what is judged.
        options: of the verdict.
        plan: the attacks.
        gate: the gate to apply.
        n: the number of images to judge.
        reference: the run to compare with, if there is one.

    """
    card, threat_model = subject.session.card(), options.threat_model_or(subject.threat_model)
    expected = expected_clean(subject, options)
    batch = subject.session.batching(subject.shape).largest if options.batch == AUTO else options.batch
    options = options.model_copy(update={"expect_clean": expected, "batch": batch})
    return Request(
        **{name: getattr(options, name) for name in RecordedOptions.model_fields},
        command=f"{subject.command} {shlex.join(command_words(stated(options, threat_model, gate, n)))}",
        artifact_sha256=card.sha256,
        gradient_sha256=card.gradient_sha256,
        parent_gradient_sha256=subject.lender.card().gradient_sha256 if subject.lender else None,
        **subject.judged_by,
        data=DataRecord(name=subject.images.name, n=len(subject.images), sha256=subject.images.sha256),
        n=n,
        threat_model=threat_model,
        attacks=tuple(attack_request(name, attacks) for name, attacks in plan.asked.items()),
        gradients=plan.gradients,
        added=tuple(attack_request(name, attacks) for name, attacks in plan.added.items()),
        gate=gate,
        against=reference.report.request_sha256 if reference else None,
        claim=subject.claim,
        expect_clean=expected,
    )


def expected_clean(subject: Subject, options: VerifyOptions) -> float | None:
    """Return the least clean accuracy to expect. For the subject's own images, an option can only raise it."""
    asked, own = options.expect_clean, subject.expected_clean
    if asked is None or own is None:
        return own if asked is None else asked
    return asked if options.data else max(asked, own)


def stated(options: VerifyOptions, threat_model: ThreatModel, gate: Gate, n: int) -> VerifyOptions:
    """Return the options with all completed values stated; the run to compare with is named REPORT."""
    return options.model_copy(
        update={
            "n": n,
            "eps": threat_model.eps,
            "fail_under": gate.fail_under,
            "max_drop": gate.max_drop,
            "no_gate": gate == Gate(),
            "against": options.against and "REPORT",
        }
    )


def attack_request(name: str, attacks: Iterable[Attack]) -> AttackRequest:
    """Return the request of one of the NAMES of attacks, with the settings of the attacks that it runs."""
    settings = {
        f"{attack.name}.{key}" if name in CASCADES else key: value
        for attack in attacks
        for key, value in attack.defaults.items()
    }
    return AttackRequest(name=name, settings=settings)

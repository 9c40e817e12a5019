"""What is judged and how: from a subject and settings to the request, with every default filled in."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.attacks import CASCADES, stages
from runtime.images.image_set import DATA_ROOT
from runtime.records.request import AttackRequest, Request
from runtime.spec import DataRecord, Gate
from runtime.suite.plan import gradients, mandatory_attacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.images.image_set import ImageSet, Layout
    from runtime.session import Session
    from runtime.spec import ThreatModel
    from runtime.verdict.paired import Finished
    from runtime.verdict.shards import Shard


@dataclass(frozen=True)
class Subject:
    """What a verdict is about.

    Args:
        session: the artifact, opened.
        name: of the bundle or run.
        classes: names of the classes, in the order of the logits.
        shape: one image, (C, H, W).
        images: the evaluation set; the first n of it are attacked.
        command: what the user types to repeat it, without the options of Settings.
        bundle_version: None where there is no bundle.
        authenticated: whether a signature was asked for, and held.
        libraries: packages whose versions the report names.
        place: turns numpy arrays into the session's.
        parent: opens the same subject in the precision that its drops are measured from; None where there is none.
        lender: the session of that precision, whose gradient leads attacks too; None where there is none.

    """

    session: Session
    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    images: ImageSet
    command: str
    bundle_version: int | None = None
    authenticated: bool = False
    libraries: tuple[str, ...] = ("edgeproof", "numpy", "onnxruntime")
    place: Callable[[Any], Any] = np.asarray
    parent: Callable[[], Subject] | None = None
    lender: Session | None = None


@dataclass(frozen=True)
class Settings:
    """How it is judged.

    Args:
        attacks: NAMES of attacks, in the order of the report.
        threat_model: norm and eps.
        gate: what must be reached.
        n: images, None for all.
        seed: of the noise, 0 to 2**64 - 1.
        batch: images a pass; changes memory and speed, never a verdict.
        against: run directory to compare with.
        save_adversarial: keep the worst points in the evidence; they stay in memory until the end.
        lattice: judge the points found on the lattice of bytes too.
        until_decided: take the images in random order until the gate is decided.
        shard: judge this part of the images alone.
        data: what --data said, None for the subject's own images; as the next two, only to repeat the command.
        layout: of that .npz.
        data_root: where sets known by name lie.

    """

    attacks: tuple[str, ...]
    threat_model: ThreatModel
    gate: Gate
    n: int | None = None
    seed: int = 0
    batch: int = 64
    against: Path | None = None
    save_adversarial: bool = False
    lattice: Literal["uint8"] | None = None
    until_decided: bool = False
    shard: Shard | None = None
    data: str | None = None
    layout: Layout | None = None
    data_root: Path = DATA_ROOT


def resolve(subject: Subject, settings: Settings, n: int, reference: Finished | None) -> Request:
    """Return the request with every default filled in."""
    card, lender = subject.session.card(), subject.lender.card() if subject.lender else None
    besides = mandatory_attacks(settings.attacks, len(subject.classes), card.facts)
    return Request(
        command=_repeat(subject.command, settings, n),
        artifact_sha256=card.sha256,
        gradient_sha256=card.gradient_sha256,
        parent_gradient_sha256=lender.gradient_sha256 if lender else None,
        precision=card.precision,
        backend=card.backend,
        provider=card.provider,
        tf32=card.tf32,
        data=DataRecord(name=subject.images.name, n=len(subject.images), sha256=subject.images.sha256),
        n=n,
        threat_model=settings.threat_model,
        attacks=tuple(_attack_request(name, len(subject.classes)) for name in settings.attacks),
        gradients=gradients(card, subject.lender),
        added=tuple(_attack_request(attack.name, len(subject.classes)) for attack in besides),
        seed=settings.seed,
        batch=settings.batch,
        gate=settings.gate,
        against=reference.report.request_sha256 if reference else None,
        save_adversarial=settings.save_adversarial,
        lattice=settings.lattice,
        until_decided=settings.until_decided,
        shard=str(settings.shard) if settings.shard else None,
    )


def _attack_request(name: str, classes: int) -> AttackRequest:
    settings = {
        f"{attack.name}.{key}" if name in CASCADES else key: value
        for attack in stages(name, classes)
        for key, value in attack.defaults.items()
    }
    return AttackRequest(name=name, settings=settings)


def _repeat(command: str, settings: Settings, n: int) -> str:
    """Return the command with every option that the run was decided by, quoted for a shell."""
    options = {
        "--attacks": ",".join(("clean", *settings.attacks)),
        "--n": n,
        "--eps": settings.threat_model.eps,
        "--seed": settings.seed,
        "--batch": settings.batch,
        "--data": settings.data,
        "--layout": settings.layout,
        "--data-root": None if settings.data_root == DATA_ROOT else settings.data_root,
        "--fail-under": settings.gate.fail_under,
        "--max-drop": settings.gate.max_drop,
        "--against": "REPORT" if settings.against else None,
        "--lattice": settings.lattice,
        "--shard": settings.shard,
    }
    flags = {
        "--no-gate": settings.gate == Gate(),
        "--until-decided": settings.until_decided,
        "--save-adversarial": settings.save_adversarial,
    }
    words = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    return f"{command} {shlex.join([*words, *(flag for flag, is_set in flags.items() if is_set)])}"

"""From an artifact and images to a verdict: the request, the run, the report and the run directory."""

from __future__ import annotations

import io
import shlex
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime import report
from runtime.attacks import CASCADES, any_bounded, stages
from runtime.bundle import DataRecord
from runtime.checks import findings
from runtime.device import machine_card, software
from runtime.errors import BadData
from runtime.files import new_directory, write_atomic
from runtime.images import DATA_ROOT, UNREADABLE, open_npz
from runtime.progress import Progress, log
from runtime.report_schema import (
    REPORT,
    Accuracy,
    Artifact,
    AttackRequest,
    ClassRow,
    Clean,
    Paired,
    Report,
    Request,
    RunRecord,
    load_report,
)
from runtime.spec import Gate, ThreatModel, to_json
from runtime.statistics import Interval, Pairs, decide, mcnemar, paired_difference, wilson
from runtime.suite import STANDS, Evidence, Outcome, Target, run_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.images import ImageSet, Layout
    from runtime.session import Session

EVIDENCE = "evidence.npz"
RUN = "run.json"
PAGE = "report.html"
PARENT = "fp32"
"""The precision that others are compared with: it has nothing to drop from."""


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
        save_adversarial: keep the worst points in the evidence.
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
    data: str | None = None
    layout: Layout | None = None
    data_root: Path = DATA_ROOT


@dataclass(frozen=True)
class Run:
    """A finished run."""

    report: Report
    evidence: Evidence


@dataclass(frozen=True)
class Reference:
    """Another run, read back: its report, and by image index its label and whether it stood."""

    report: Report
    label: dict[int, int]
    robust: dict[int, bool]


def verify(subject: Subject, settings: Settings, progress: Progress) -> Run:
    """Attack the subject and judge it.

    Raises:
        BadData: the images do not fit the model, are fewer than asked for, or `against` does not fit.
        BadModel: a graph does not take the images, or has too few classes for an attack.
        NonFinite: the artifact answers NaN or infinity.

    """
    started, began = datetime.now(timezone.utc), time.perf_counter()
    images = subject.images.first(settings.n)
    images.check_fits(subject.shape, len(subject.classes))
    reference = read_reference(settings.against) if settings.against else None
    request = resolve(subject, settings, len(images), reference)
    check_comparable(request, reference)
    target = Target(subject.session, images, len(subject.classes), settings.batch, subject.place)
    outcome = run_suite(
        target,
        settings.attacks,
        eps=settings.threat_model.eps,
        seed=settings.seed,
        keep_all=settings.save_adversarial,
        progress=progress,
    )
    paired = pair(outcome.evidence, reference) if reference else None
    finished = build_report(
        subject, request, outcome, paired, f"{started:%Y-%m-%dT%H:%M:%SZ}", time.perf_counter() - began
    )
    return Run(finished, outcome.evidence)


def resolve(subject: Subject, settings: Settings, n: int, reference: Reference | None) -> Request:
    """Return the request with every default filled in."""
    card = subject.session.card()
    return Request(
        command=_repeat(subject.command, settings, n),
        artifact_sha256=card.sha256,
        precision=card.precision,
        backend=card.backend,
        provider=card.provider,
        data=DataRecord(name=subject.images.name, n=len(subject.images), sha256=subject.images.sha256),
        n=n,
        threat_model=settings.threat_model,
        attacks=tuple(_attack_request(name, len(subject.classes)) for name in settings.attacks),
        seed=settings.seed,
        batch=settings.batch,
        gate=settings.gate,
        against=reference.report.request_sha256 if reference else None,
        save_adversarial=settings.save_adversarial,
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
    }
    words = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    return f"{command} {shlex.join(words)}{' --save-adversarial' if settings.save_adversarial else ''}"


def build_report(
    subject: Subject, request: Request, outcome: Outcome, paired: Paired | None, started: str, seconds: float
) -> Report:
    """Put the figures, the verdict and their circumstances into one record."""
    evidence, card, n = outcome.evidence, subject.session.card(), request.n
    correct, standing = int(evidence.correct.sum()), int(evidence.robust.sum())
    worst_case = any_bounded(attack.name for attack in request.attacks)
    robust = Accuracy(value=standing / n, ci95=wilson(standing, n)) if worst_case else None
    warnings = findings(outcome)
    decision = decide(
        request.gate,
        robust.ci95 if robust else None,
        paired.ci95 if paired else None,
        blocking=[warning.message for warning in warnings if warning.blocking],
        parent=card.precision == PARENT,
    )
    return Report(
        verdict=decision.verdict,
        reasons=tuple(decision.reasons),
        gate=request.gate,
        artifact=Artifact(
            name=subject.name,
            sha256=card.sha256,
            engine_sha256=card.engine_sha256,
            precision=card.precision,
            backend=card.backend,
            provider=card.provider,
            bundle_version=subject.bundle_version,
            authenticated=subject.authenticated,
        ),
        data=DataRecord(name=request.data.name, n=n, sha256=request.data.sha256),
        threat_model=request.threat_model,
        request=request,
        request_sha256=request.digest(),
        seed=request.seed,
        clean=Clean(n=n, correct=correct, accuracy=correct / n, ci95=wilson(correct, n)),
        attacks=outcome.attacks,
        robust_accuracy=robust,
        per_class=per_class(evidence, subject.classes),
        confusion=confusion(evidence, len(subject.classes)),
        eps_curve=outcome.eps_curve,
        paired=paired,
        agreement=outcome.agreement,
        warnings=warnings,
        device={**machine_card(), "accelerator": card.device},
        software=software(subject.libraries),
        started=started,
        seconds=seconds,
    )


def per_class(evidence: Evidence, classes: tuple[str, ...]) -> tuple[ClassRow, ...]:
    """Return clean and robust accuracy on the images of each class."""
    rows = []
    for label, name in enumerate(classes):
        own = evidence.label == label
        n = int(own.sum())
        clean, robust = (float(flag[own].mean()) if n else None for flag in (evidence.correct, evidence.robust))
        rows.append(ClassRow(label=label, name=name, n=n, clean=clean, robust=robust))
    return tuple(rows)


def confusion(evidence: Evidence, classes: int) -> tuple[tuple[int, ...], ...]:
    """Return the images counted by label (row) and by the artifact's class at the worst point (column)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (evidence.label, evidence.adversarial_prediction), 1)
    return tuple(tuple(row) for row in counts.tolist())


def read_reference(directory: Path) -> Reference:
    """Read a run directory to compare with.

    Raises:
        BadData: report or evidence is missing or damaged.

    """
    path = directory / EVIDENCE
    try:
        with open_npz(path) as file:
            index, labels, broken_by = (file[name].tolist() for name in ("index", "label", "broken_by"))
        label = dict(zip(index, labels, strict=True))
        robust = dict(zip(index, (row == STANDS for row in broken_by), strict=True))
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise BadData(f"{path} cannot be read: {error}", hint="name the --out of a finished verify") from None
    return Reference(load_report(directory), label, robust)


def check_comparable(request: Request, reference: Reference | None) -> None:
    """Raise `BadData` unless the other run is of the same images, attacks and threat model."""
    other = reference.report.request if reference else request
    for what, mine, its in (
        ("images", request.data.sha256, other.data.sha256),
        ("threat model", request.threat_model, other.threat_model),
        ("attacks", request.attacks, other.attacks),
    ):
        if mine != its:
            raise BadData(f"the run to compare with has other {what}", hint="run it again with the same request")


def pair(evidence: Evidence, reference: Reference) -> Paired:
    """Compare image by image with another run, on the images that both attacked.

    Raises:
        BadData: they have no image in common, or another label for one.

    """
    label = dict(zip(evidence.index.tolist(), evidence.label.tolist(), strict=True))
    common = sorted(label.keys() & reference.label.keys())
    if not common or any(label[image] != reference.label[image] for image in common):
        raise BadData("the run to compare with shares no images, or has other labels for them")
    this = evidence.robust[np.searchsorted(evidence.index, common)]
    that = np.asarray([reference.robust[image] for image in common])
    pairs = Pairs(*(int(both.sum()) for both in (this & that, this & ~that, ~this & that, ~this & ~that)))
    other = reference.report.artifact
    interval: Interval = paired_difference(pairs)
    return Paired(
        against=f"{other.name} {other.precision} on {other.backend}/{other.provider}, {other.sha256[:12]}",
        **pairs._asdict(),
        difference=pairs.difference,
        ci95=interval,
        mcnemar_p=mcnemar(pairs),
    )


def write_run(out: Path, run: Run) -> None:
    """Write run.json, report.json, evidence.npz and, with the extra `report`, report.html: all or nothing.

    Raises:
        UsageFault: `out` exists and is not empty.

    """
    with new_directory(out) as directory:
        write_atomic(
            directory / RUN,
            to_json(RunRecord(request=run.report.request, request_sha256=run.report.request_sha256)),
        )
        write_atomic(directory / REPORT, to_json(run.report))
        write_atomic(directory / EVIDENCE, _npz(run.evidence.arrays(adversarial=run.report.request.save_adversarial)))
        missing = report.missing_library()
        if missing:
            log(f"no {PAGE}: {missing} is not installed (pip install 'edgeproof[report]')")
        else:
            write_atomic(directory / PAGE, report.render(run.report).encode())


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()

"""From an artifact and images to a verdict: what is asked, resolved and checked; then the run, and its report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import stages
from runtime.attacks.noise import Noise
from runtime.backends.batch_halving import BatchHalving
from runtime.errors import BadData, BadModel, UsageFault
from runtime.machine.card import machine_card, software
from runtime.progress import log
from runtime.records.report import Artifact, Circumstances
from runtime.spec import PARENT, Gate
from runtime.suite.campaign import SAMPLE, Outcome, run_suite
from runtime.suite.journal import NoJournal
from runtime.suite.plan import gradients
from runtime.suite.units import Target
from runtime.verdict.figures import accuracy, build_report, judge
from runtime.verdict.gallery import Gallery, gather
from runtime.verdict.paired import Finished, check_comparable, check_shared, match, pair, read_reference
from runtime.verdict.subject import Settings, Subject, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.images.image_set import ImageSet
    from runtime.progress import Progress
    from runtime.records.report import Paired, Report
    from runtime.records.request import Request
    from runtime.suite.evidence import Evidence
    from runtime.suite.journal import Ledger

__all__ = ["Case", "Run", "Settings", "Subject", "prepare", "verify"]

FIRST_BLOCK, LARGEST_BLOCK, GROWTH = 16, 256, 0.25
"""A run that stops early looks after so many images; then after a quarter more each time, at most so many."""

LARGEST_BATCH = "largest_batch"
"""In the report's `device`, where a batch did not fit the memory: images that were asked for at once in the end."""


@dataclass(frozen=True)
class Run:
    """A finished run of all images asked for.

    Args:
        report: what is said of it.
        evidence: a row for every image judged.
        gallery: a few of them, to be looked at.

    """

    report: Report
    evidence: Evidence
    gallery: Gallery


@dataclass(frozen=True)
class Findings:
    """What an attacked case leaves before it is judged: what a shard hands on."""

    outcome: Outcome
    circumstances: Circumstances
    paired: Paired | None
    gallery: Gallery


@dataclass(frozen=True)
class Case:
    """A subject, the request resolved, and what it is compared with; everything that can be checked is."""

    subject: Subject
    settings: Settings
    images: ImageSet
    request: Request
    reference: Finished | None

    @property
    def order(self) -> Any:
        """Places of the images, in the order in which they are attacked: int64 [M]."""
        index = np.arange(len(self.images))
        if self.settings.until_decided:
            return np.argsort(Noise(self.settings.seed, "order").bits([0], len(index))[0], kind="stable")
        return self.settings.shard.of(index) if self.settings.shard else index

    def attack(self, progress: Progress, ledger: Ledger | None = None, *, started: str = "") -> Findings:
        """Run the suite.

        Args:
            progress: told how far it is.
            ledger: knows the units that are done; None does all.
            started: when the run began, ISO 8601; by default now.

        Raises:
            BadModel: a graph does not take the images, or has too few classes for an attack.
            NonFinite: the artifact answers NaN or infinity.
            OutOfMemory: not even one image fits the memory.
            BadRun: what the ledger holds is damaged.

        """
        began, now = time.perf_counter(), f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
        subject, settings, order = self.subject, self.settings, self.order
        early, ledger = settings.until_decided, NoJournal() if ledger is None else ledger
        session, lender = (
            BatchHalving(subject.session),
            BatchHalving(subject.lender) if subject.lender else None,
        )
        outcome = run_suite(
            Target(session, self.images, len(subject.classes), settings.batch, subject.place, lender),
            settings.attacks,
            eps=settings.threat_model.eps,
            seed=settings.seed,
            keep_all=settings.save_adversarial,
            progress=progress,
            ledger=ledger,
            blocks=growing(order) if early else [order],
            sample=order[:SAMPLE] if early else order[order < SAMPLE],
            decided=self._decided if early else lambda evidence, judged: False,
            lattice=settings.lattice is not None,
        )
        judged = order[: len(outcome.evidence)] if early else None
        compared = pair(outcome.evidence, self.reference, judged) if self.reference else None
        seconds = ledger.earlier_seconds + time.perf_counter() - began
        gallery = gather(outcome.evidence, self.images, settings.threat_model.eps, len(outcome.attacks))
        halved = (each.largest for each in (session, lender) if each and each.largest)
        largest = min(halved, default=None)
        return Findings(outcome, self._circumstances(started or now, seconds, largest), compared, gallery)

    def judge(self, findings: Findings) -> Run:
        """Judge what was found."""
        judged = self.order[: len(findings.outcome.evidence)] if self.settings.until_decided else None
        report = build_report(findings.circumstances, self.request, findings.outcome, findings.paired, judged)
        return Run(report, findings.outcome.evidence, findings.gallery)

    def _decided(self, evidence: Evidence, judged: Any) -> bool:
        seen = evidence.rows(np.sort(judged))
        if self.reference and not len(match(seen, self.reference).index):
            return False  # there is no comparison yet, which is not to say that none was asked for
        compared = pair(seen, self.reference, judged) if self.reference else None
        return judge(self.request, accuracy(seen, seen.robust, judged), compared).verdict != "inconclusive"

    def _circumstances(self, started: str, seconds: float, largest: int | None) -> Circumstances:
        subject, card = self.subject, self.subject.session.card()
        fitted = {} if largest is None else {LARGEST_BATCH: largest}
        return Circumstances(
            artifact=Artifact(
                name=subject.name,
                sha256=card.sha256,
                engine_sha256=card.engine_sha256,
                precision=card.precision,
                backend=card.backend,
                provider=card.provider,
                tf32=card.tf32,
                bundle_version=subject.bundle_version,
                authenticated=subject.authenticated,
            ),
            classes=subject.classes,
            device={**machine_card(), "accelerator": card.device, **fitted},
            software=software(subject.libraries),
            started=started,
            seconds=seconds,
        )


def growing(order: Any) -> list[Any]:
    """Return `order` in blocks that grow with what was judged before, so that looking often costs little."""
    ends = [0]
    while ends[-1] < len(order):
        ends.append(ends[-1] + min(max(int(GROWTH * ends[-1]), FIRST_BLOCK), LARGEST_BLOCK))
    return np.split(order, ends[1:-1])


def prepare(subject: Subject, settings: Settings) -> Case:
    """Resolve and check what is asked, before any attack. PARENT has nothing to drop from where nothing is compared.

    Raises:
        UsageFault: an early stop without a gate to decide, or of a shard.
        BadData: the images do not fit the model, are fewer than asked for, or `against` does not fit.
        BadModel: the model has too few classes for an attack, or see `check_gradient`.

    """
    if subject.session.card().precision == PARENT and settings.gate.max_drop is not None and settings.against is None:
        log(f"the gate on the drop of robust accuracy asks nothing of {PARENT}, from which drops are measured")
        settings = replace(settings, gate=Gate(fail_under=settings.gate.fail_under))
    if settings.until_decided and settings.gate == Gate():
        raise UsageFault(
            "--until-decided has no gate to decide", hint="--fail-under 45%, or --max-drop 1% --against DIR"
        )
    if settings.until_decided and settings.shard:
        raise UsageFault("--until-decided cannot judge a shard", hint="leave out --shard: the whole run stops early")
    check_gradient(subject, settings.attacks)
    images = subject.images.first(settings.n)
    images.check_fits(subject.shape, subject.classes)
    if settings.shard and settings.shard.number > len(images):
        raise BadData(f"shard {settings.shard} of {len(images)} images is empty", hint="make fewer shards")
    reference = read_reference(settings.against) if settings.against else None
    request = resolve(subject, settings, len(images), reference)
    check_comparable(request, reference)
    case = Case(subject, settings, images, request, reference)
    if reference:
        check_shared(reference, case.order, images.labels[case.order])
    return case


def check_gradient(subject: Subject, names: Sequence[str]) -> None:
    """Raise `BadModel` where one of the attacks needs a gradient, and neither the artifact nor a parent has a graph."""
    card = subject.session.card()
    needing = [name for name in names if any(stage.uses_gradient for stage in stages(name, len(subject.classes)))]
    if needing and not gradients(card, subject.lender):
        raise BadModel(
            f"{needing[0]} needs the gradient, and {card.precision} has no gradient graph",
            hint="--gradient none attacks it by Square alone",
        )


def verify(subject: Subject, settings: Settings, progress: Progress) -> Run:
    """Attack the subject and judge it, in memory alone: see `prepare` and `Case.attack` for what is raised."""
    case = prepare(subject, settings)
    return case.judge(case.attack(progress))

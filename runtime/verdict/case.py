"""A case: resolves and checks the request for a subject, runs the attacks, and makes the report."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks.noise import shuffled
from runtime.batches.fixed_sizes import FixedSizes
from runtime.batches.halving import BatchHalving
from runtime.errors import BadData
from runtime.gallery.store import Gallery, gather
from runtime.images.uint8_grid import check_whole_levels
from runtime.machine.card import machine_card, software
from runtime.records.report import Circumstances
from runtime.session import BorrowedGradient
from runtime.spec import PARENT, Gate
from runtime.suite.journal import NoJournal
from runtime.suite.outcome import Outcome
from runtime.suite.plan import plan_suite
from runtime.suite.run import SAMPLE, run_suite
from runtime.suite.units import Target
from runtime.terminal.log import log
from runtime.verdict.figures import build_report, decide_verdict, estimate_accuracy, hidden_in
from runtime.verdict.options import VerifyOptions, check_decidable
from runtime.verdict.paired import (
    Finished,
    check_comparable,
    check_shared,
    match_images,
    pair_with_reference,
    read_reference,
)
from runtime.verdict.subject import Subject, resolve, witness_of
from runtime.words import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.images.image_set import ImageSet
    from runtime.records.report import Paired, Report
    from runtime.records.request import Request
    from runtime.session import Session
    from runtime.suite.evidence import Evidence
    from runtime.suite.journal import Ledger
    from runtime.suite.outcome import Held
    from runtime.suite.plan import Plan
    from runtime.terminal.progress import Progress

__all__ = ["Case", "Run", "Subject", "VerifyOptions", "prepare_case", "verify"]

FIRST_BLOCK, LARGEST_BLOCK, GROWTH = 16, 256, 0.25
"""With early stopping, blocks have FIRST_BLOCK images, then GROWTH times those judged so far, at most LARGEST_BLOCK."""

SEARCHED, SEARCHED_SHARE = 160, 1 / 12
"""The images that the blind control may search, or this share of a larger set; it costs under a fifth of the suite."""

LARGEST_BATCH = "largest_batch"
"""The key in the report's `device` of the largest batch that fitted, if an earlier one did not fit into memory."""


@dataclass(frozen=True)
class Run:
    """A finished run of all requested images.

    Args:
        report: the report.
        evidence: a row for every image judged.
        gallery: a few images for people to look at.

    """

    report: Report
    evidence: Evidence
    gallery: Gallery


@dataclass(frozen=True)
class Findings:
    """The results of a case after the attacks and before the verdict; a shard writes these."""

    outcome: Outcome
    circumstances: Circumstances
    paired: Paired | None
    gallery: Gallery


@dataclass(frozen=True)
class Case:
    """A subject, its resolved request, and the run to compare with, after all checks that need no attack."""

    subject: Subject
    plan: Plan
    images: ImageSet
    request: Request
    reference: Finished | None

    @property
    def order(self) -> Any:
        """The indices of the images, in the order in which they are attacked: int64 [M]."""
        index = np.arange(len(self.images))
        if self.request.until_decided:
            return self.shuffled
        return self.request.shard.of(index) if self.request.shard else index

    @property
    def shuffled(self) -> Any:
        """The indices of all images in random order: int64 [N]."""
        return shuffled(self.request.seed, len(self.images))

    @property
    def sample(self) -> Any:
        """The indices of the images for the further tests; a shard uses those of them that are its own."""
        return self.shuffled[:SAMPLE]

    @property
    def searched(self) -> Any:
        """The indices of the images for the blind control, which searches those that were judged and survive."""
        early = self.request.until_decided  # the number of images that will be judged is unknown
        return self.shuffled[: SEARCHED if early else max(SEARCHED, int(SEARCHED_SHARE * len(self.images)))]

    @property
    def sampled(self) -> dict[str, str]:
        """The journal's record that the sample is random, unless it is all images; earlier versions took the first."""
        return {"sample": "random"} if len(self.images) > SAMPLE else {}

    @property
    def full(self) -> bool:
        """Whether the session's batches are of few sizes and kept full."""
        return self.subject.session.batching(self.subject.shape).full

    def attack(self, progress: Progress, ledger: Ledger | None = None, *, started: str = "") -> Findings:
        """Run the suite.

        Args:
            progress: follows the run.
            ledger: has the units that are done; None has none.
            started: when the run began, ISO 8601; by default now.

        Raises:
            BadModel: a graph does not accept the images.
            NonFinite: the artifact answers NaN or infinity.
            OutOfMemory: not even one image fits into memory.
            BadRun: a unit of the ledger is damaged.

        """
        began, now = time.perf_counter(), timestamp()
        request, order = self.request, self.order
        early, ledger = request.until_decided, NoJournal() if ledger is None else ledger
        asked = [each for each in (self.judge, self.lender, self.witness) if each]
        with ExitStack() as opened:
            outcome = run_suite(
                self.target(self._plain(opened, asked)),
                self.plan,
                eps=request.threat_model.eps,
                seed=request.seed,
                keep_all=request.save_adversarial,
                progress=progress,
                ledger=ledger,
                blocks=growing(order) if early else [order],
                sample=np.intersect1d(self.sample, order),
                decided=self._decided if early else lambda evidence, judged, held: False,
                lattice=request.lattice is not None,
                searched=None if request.gate == Gate() else np.intersect1d(self.searched, order),
                part=request.shard is not None,
            )
        judged = order[: len(outcome.evidence)] if early else None
        compared = pair_with_reference(outcome.evidence, self.reference, judged) if self.reference else None
        seconds = ledger.earlier_seconds + time.perf_counter() - began
        gallery = gather(outcome.evidence, self.images, request.threat_model.eps, len(outcome.attacks))
        largest = min((each.largest for each in asked if each.largest), default=None)
        return Findings(outcome, self._circumstances(started or now, seconds, largest), compared, gallery)

    @cached_property
    def judge(self) -> BatchHalving:
        """The subject's session, with batches that are halved when memory runs out, for all who use it."""
        return BatchHalving(self.subject.session)

    @cached_property
    def lender(self) -> BatchHalving | None:
        """The lender, with batches halved as the judge's; None without one."""
        return BatchHalving(self.subject.lender) if self.subject.lender else None

    @cached_property
    def witness(self) -> BatchHalving | None:
        """The witness, with batches halved as the judge's; None without one."""
        return BatchHalving(self.subject.witness) if self.subject.witness else None

    def target(self, plain: Callable[[], Session] | None = None) -> Target:
        """Return the target of the attacks; `plain` opens the artifact without the engine's optimisations."""
        return Target(
            self._sized(self.judge),
            self.images,
            len(self.subject.classes),
            self.request.batch,
            self.subject.to_device,
            self._sized(self.lender) if self.lender else None,
            plain,
            self.full,
            witness_of(self.witness, self.subject.session.card().judge_command),
        )

    def conclude(self, findings: Findings) -> Run:
        """Return the run: the findings with the verdict."""
        judged = self.order[: len(findings.outcome.evidence)] if self.request.until_decided else None
        report = build_report(findings.circumstances, self.request, findings.outcome, findings.paired, judged)
        return Run(report, findings.outcome.evidence, findings.gallery)

    def _decided(self, evidence: Evidence, judged: Any, held: Callable[[], Held]) -> bool:
        seen = evidence.rows(np.sort(judged))
        if self.reference and not len(match_images(seen, self.reference).index):
            return False  # no image is shared yet, so the drop cannot be judged so far
        compared = pair_with_reference(seen, self.reference, judged) if self.reference else None
        robust = estimate_accuracy(seen, seen.robust, judged)
        decide = partial(decide_verdict, self.request, robust, compared)
        if (verdict := decide().verdict) != "passed" or len(judged) < min(SAMPLE, len(self.order)):
            return verdict == "failed"
        found = Outcome(seen, (), **held()._asdict()).settled
        return decide(hidden=hidden_in(robust, seen.fell, found.blind_control, found.gradient_test)).verdict == "passed"

    def _plain(self, opened: ExitStack, asked: list[BatchHalving]) -> Callable[[], Session] | None:
        """Return a function that opens the artifact without optimisations once, and adds it to `opened` and `asked`."""
        opening = self.subject.session.unoptimised()
        if opening is None:
            return None

        @cache
        def plain() -> Session:
            asked.append(BatchHalving(BorrowedGradient(opened.enter_context(opening()), None)))
            return asked[-1]

        return plain

    def _sized(self, session: Session) -> Session:
        """Return a session with batches of few sizes, if they should be full."""
        return FixedSizes(session, self.request.batch) if self.full else session

    def _circumstances(self, started: str, seconds: float, largest: int | None) -> Circumstances:
        subject = self.subject
        fitted = {} if largest is None else {LARGEST_BATCH: largest}
        return Circumstances(
            artifact=subject.artifact,
            classes=subject.classes,
            device={**machine_card(), **subject.accelerators, **fitted},
            software=software(subject.libraries),
            started=started,
            seconds=seconds,
        )


def growing(order: Any) -> list[Any]:
    """Return `order` in blocks that grow with the images judged so far, so that examining the gate costs little."""
    ends = [0]
    while ends[-1] < len(order):
        ends.append(ends[-1] + min(max(int(GROWTH * ends[-1]), FIRST_BLOCK), LARGEST_BLOCK))
    return np.split(order, ends[1:-1])


def plan_for(subject: Subject, options: VerifyOptions) -> Plan:
    """Return the plan for a subject; raises as `plan_suite` does."""
    return plan_suite(options.attacks, len(subject.classes), subject.session.card(), lends=subject.lender is not None)


def prepare_case(subject: Subject, options: VerifyOptions, plan: Plan | None = None) -> Case:
    """Resolve and check a request, before any attack.

    Args:
        subject: what is judged.
        options: of the verdict.
        plan: the attacks; by default those of `plan_for`.

    Raises:
        UsageFault: --until-decided without a gate; or eps is not a whole number of levels, and the model takes bytes.
        BadData: the images do not fit the model or are too few, or the run in `against` does not fit.
        BadModel: see `plan_suite`.

    """
    gate = applicable_gate(subject, options)
    check_decidable(options, gate)
    plan = plan or plan_for(subject, options)
    images = subject.images.first(options.n)
    images.check_fits(subject.shape, subject.classes)
    if subject.session.card().facts.takes_bytes:
        check_whole_levels(images, options.threat_model_or(subject.threat_model).eps)
    if options.shard and options.shard.number > len(images):
        raise BadData(f"shard {options.shard} of {len(images)} images is empty", hint="make fewer shards")
    reference = read_reference(options.against) if options.against else None
    request = resolve(subject, options, plan, gate, len(images), reference)
    check_comparable(request, reference)
    case = Case(subject, plan, images, request, reference)
    if reference:
        check_shared(reference, case.order, images.labels[case.order])
    return case


def applicable_gate(subject: Subject, options: VerifyOptions) -> Gate:
    """Return the gate to apply. For PARENT, a limit on the drop is left out unless a run to compare with is named."""
    gate = options.gate_or(subject.gate)
    if subject.session.card().precision != PARENT or gate.max_drop is None or options.against:
        return gate
    log.warning(f"the gate on the drop of robust accuracy is ignored for {PARENT}: drops are measured from it")
    return Gate(fail_under=gate.fail_under)


def verify(subject: Subject, options: VerifyOptions, progress: Progress) -> Run:
    """Attack the subject and judge it, without writing files; raises as `prepare_case` and `Case.attack` do."""
    case = prepare_case(subject, options)
    return case.conclude(case.attack(progress))

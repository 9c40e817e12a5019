"""`edgeproof.verify` and `edgeproof.attack`: what `edgeproof verify` does, from Python."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeproof.asked import Given, scratch_directory, what_is_asked
from runtime.attacks import NAMES, any_bounded, stages
from runtime.batches.halving import BatchHalving
from runtime.commands.judging import check_asked, judged
from runtime.commands.judging_each import directories_of
from runtime.errors import MissingEnvironment, UsageFault, install
from runtime.options.run import RunOptions
from runtime.records.report import REPORT
from runtime.report.formats import FORMATS
from runtime.suite.evidence import Evidence
from runtime.suite.units import Target, classify, measure, search
from runtime.verdict.paired import EVIDENCE
from runtime.words import percent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from runtime.attacks import Attack
    from runtime.images.image_set import Layout
    from runtime.records.report import Report
    from runtime.records.request import GradientSource
    from runtime.verdict.subject import Subject

HTML = FORMATS["html"].file


@dataclass(frozen=True)
class Verdict:
    """What was found of a model, and whether it passed its gate.

    Args:
        report: all of it, as report.json has it.
        directory: the run directory. Without `out` it is a temporary one, which goes when this goes.

    """

    report: Report
    directory: Path

    @property
    def outcome(self) -> str:
        """'passed', 'failed', 'inconclusive', or 'measured' where no gate was asked for."""
        return self.report.verdict

    @property
    def passed(self) -> bool:
        """Whether a gate was asked for, and passed. 'measured' and 'inconclusive' are no pass."""
        return self.outcome == "passed"

    @property
    def clean_accuracy(self) -> float:
        """The fraction of the images that is classified correctly."""
        return self.report.clean.accuracy

    @property
    def robust_accuracy(self) -> float | None:
        """The fraction that is classified correctly at every point tried within eps; None where none was attacked so.

        It is an upper bound: it says what these attacks did not break.
        """
        robust = self.report.robust_accuracy
        return None if robust is None else robust.value

    @cached_property
    def evidence(self) -> dict[str, NDArray[Any]]:
        """The arrays of evidence.npz by name, a row an image: see `runtime.suite.evidence.Evidence`."""
        with np.load(self.directory / EVIDENCE, allow_pickle=False) as arrays:
            return dict(arrays)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write the report's page, one file that needs no other; return its path.

        Raises:
            MissingEnvironment: the extra `report` is not installed.

        """
        page = self.directory / HTML
        if not page.is_file():
            raise MissingEnvironment("the page needs the extra 'report'", hint=install("report"))
        return Path(shutil.copyfile(page, path))

    def to_json(self, path: str | PathLike[str]) -> Path:
        """Write report.json; return its path."""
        return Path(shutil.copyfile(self.directory / REPORT, path))

    def __bool__(self) -> bool:
        """Refuse to be taken for an answer: a verdict that failed is an object like any other.

        Raises:
            TypeError: always.

        """
        raise TypeError("a verdict is neither true nor false: ask verdict.passed")

    def __str__(self) -> str:
        """Return the outcome and the figures in a line."""
        robust = "" if self.robust_accuracy is None else f", robust {percent(self.robust_accuracy)}"
        return f"{self.outcome}: clean {percent(self.clean_accuracy)}{robust}"


def verify(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    eps: float | None = None,
    attacks: str | Sequence[str] | None = None,
    n: int | None = None,
    fail_under: float | None = None,
    max_drop: float | None = None,
    against: str | PathLike[str] | None = None,
    expect_clean: float | None = None,
    no_gate: bool = False,
    precision: str | None = None,
    backend: str = "ort",
    provider: str | None = None,
    gradient_backend: str | None = None,
    gradient: str = "auto",
    classes: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    bgr: bool = False,
    output: str | None = None,
    layout: Layout | None = None,
    trust: str | PathLike[str] | None = None,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
) -> Verdict:
    """Attack a model as it ships, on this machine, and judge it: what `edgeproof verify` does.

    Args:
        model: a bundle's directory, an ONNX file, its bytes, or a PyTorch network, which is exported first.
        x: the images, uint8 or floats in [0, 1]: [N, C, H, W], [N, H, W, C] or [N, H, W]; numpy or a tensor. By default
            a bundle's own.
        y: their labels: class numbers [N] in the order of the logits, or one-hot rows.
        eps: L-infinity radius, on images in [0, 1]; by default the bundle's own, 8/255 for a model.
        attacks: names, as "pgd,cw" or a list; "aa" is standard AutoAttack.
        n: judge the first n images.
        fail_under: the gate: the least robust accuracy, from 0 to 1; by default the bundle's own.
        max_drop: the gate: the largest drop of robust accuracy, from fp32 or from the run `against`.
        against: the run directory to compare with, image by image.
        expect_clean: the least clean accuracy expected of these images; below it no gate passes.
        no_gate: ask for no gate, whatever the bundle says.
        precision: which graph of a bundle; by default the one that ships.
        backend: the engine that judges; `edgeproof targets` lists them.
        provider: what the engine runs on.
        gradient_backend: what lends the gradient, as "ort:cpu"; by default the judge where it can.
        gradient: "none" follows no gradient, which is weak evidence.
        classes: names of the classes.
        mean: taken off each channel before the model, of images in [0, 1]; not for a bundle or a network.
        std: divided by, likewise.
        bgr: the model takes blue first.
        output: which of the model's outputs has the logits.
        layout: where x has its channels, where its shape does not tell.
        trust: a public key: the bundle must be signed by it.
        seed: of every random number.
        out: the run directory, new or empty; by default a temporary one.

    Raises:
        UsageFault: what is asked contradicts itself.
        BadBundle, BadModel, BadData: the model or the images cannot be used; the message says why.
        NonFinite: the model answers NaN or infinity.
        MissingEnvironment: an engine, an extra or a place to write is missing.

    """
    with scratch_directory() as (scratch, keep_for):
        asked = what_is_asked(
            Given(model, x, y, layout, classes), scratch, trust,
            {"backend": backend, "provider": provider, "precision": precision,
             "gradient_backend": gradient_backend, "gradient": gradient},
            {"mean": tuple(mean) or None, "std": tuple(std) or None, "bgr": bgr, "output": output},
            {"eps": eps, "attacks": attacks, "n": n, "fail_under": fail_under, "max_drop": max_drop,
             "against": None if against is None else Path(against), "expect_clean": expect_clean, "no_gate": no_gate,
             "seed": seed},
        )  # fmt: skip
        run = RunOptions(out=scratch / "run" if out is None else Path(out))
        check_asked(asked.options, run)
        directories = directories_of(asked.opened, asked.engine, asked.options, run)
        with ExitStack() as sessions:
            report = judged(asked.subject(sessions.enter_context), asked.options, directories, resume=False)
        assert report is not None  # of a shard alone
        verdict = Verdict(report, directories.out)
        if out is None:
            keep_for(verdict)
        return verdict


def attack(
    model: Any,
    x: Any,
    y: Any,
    *,
    attack: str = "pgd",
    eps: float = 8 / 255,
    precision: str | None = None,
    backend: str = "ort",
    provider: str | None = None,
    gradient_backend: str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    bgr: bool = False,
    output: str | None = None,
    layout: Layout | None = None,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return the worst point that an attack finds within eps of each image: float32 [N, C, H, W] in [0, 1].

    It is one that the model misclassifies, where one was found, else the one with the largest margin. An image that is
    misclassified already stays as it is.

    Args:
        model: see `verify`, as every other argument.
        x: the images.
        y: their labels.
        attack: its name, as "apgd-t"; "aa" is standard AutoAttack.
        eps: L-infinity radius.
        precision: which graph of a bundle.
        backend: the engine that judges.
        provider: what it runs on.
        gradient_backend: what lends the gradient.
        mean: taken off each channel before the model.
        std: divided by, likewise.
        bgr: the model takes blue first.
        output: which of the model's outputs has the logits.
        layout: where x has its channels.
        seed: of every random number.

    Raises:
        UsageFault: there is no such attack, or it knows no eps.
        EdgeproofError: see `verify`.

    """
    if attack not in NAMES or not any_bounded([attack]):
        known = ", ".join(name for name in NAMES if any_bounded([name]))
        raise UsageFault(f"{attack!r} is no attack within eps", hint=f"known: {known}")
    with scratch_directory() as (scratch, _), ExitStack() as sessions:
        asked = what_is_asked(
            Given(model, x, y, layout), scratch, None,
            {"backend": backend, "provider": provider, "precision": precision, "gradient_backend": gradient_backend},
            {"mean": tuple(mean) or None, "std": tuple(std) or None, "bgr": bgr, "output": output},
            {"eps": eps, "attacks": (attack,), "no_gate": True, "seed": seed},
        )  # fmt: skip
        subject = asked.subject(sessions.enter_context)
        return worst_points(subject, stages(attack, len(subject.classes)), eps, seed)


def worst_points(subject: Subject, attacks: Sequence[Attack], eps: float, seed: int) -> NDArray[np.float32]:
    """Return the worst point of each image that attacks, each on what the earlier ones left, find within eps."""
    images = subject.images
    images.check_fits(subject.shape, subject.classes)
    largest = subject.session.batching(subject.shape).largest
    target = Target(BatchHalving(subject.session), images, len(subject.classes), largest, subject.to_device)
    evidence = Evidence.blank(images, np.arange(len(images)))
    for chunk in target.chunks(evidence.index):
        evidence.classify(chunk, **measure(target, chunk, classify).arrays)
    for row, each in enumerate(attacks):
        source: GradientSource = "own" if each.uses_gradient else "none"
        evidence.began(each.name, source)
        job = partial(search, attack=each, eps=eps, seed=seed, evidence=evidence)
        for chunk in target.chunks(np.flatnonzero(evidence.robust), each.unit):
            evidence.update(row, each.name, source, chunk, measure(target, chunk, job).arrays)
    found: NDArray[np.float32] = evidence.adversarial
    return found

"""`edgeproof.verify` and `edgeproof.attack`: what `edgeproof verify` does, from Python."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeproof.arguments import each_channel, existing, names_arguments
from edgeproof.asked import Given, scratch_directory, what_is_asked
from edgeproof.points import worst_points
from runtime.attacks import NAMES, any_bounded
from runtime.commands.judging import check_asked, judged
from runtime.commands.judging_each import directories_of
from runtime.errors import MissingEnvironment, UsageFault, install
from runtime.options.run import RunOptions
from runtime.records.report import REPORT
from runtime.report.formats import FORMATS
from runtime.verdict.case import prepare_case
from runtime.verdict.paired import EVIDENCE
from runtime.words import did_you_mean, percent, radius

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from runtime.images.image_set import Layout
    from runtime.records.report import Report

CHANCE = "clean-above-chance"
GUESSING = (
    "unless these are too few images, y (numbers from 0, in the order of the logits), the normalisation (mean, std) "
    "or the order of the colours (bgr) is probably wrong"
)
HTML, SUMMARY = FORMATS["html"].file, FORMATS["markdown"].file


@dataclass(frozen=True)
class Verdict:
    """What `verify` found out about a model, and whether the model passed its gate.

    Args:
        report: every figure, as report.json has it.
        directory: the run directory. Without `out` it is temporary, and vanishes with this object.

    """

    report: Report
    directory: Path

    @property
    def outcome(self) -> str:
        """'passed', 'failed', 'inconclusive', or 'measured' where no gate was asked for."""
        return self.report.verdict

    @property
    def passed(self) -> bool:
        """Whether there was a gate, and the model passed it. 'measured' and 'inconclusive' are no pass."""
        return self.outcome == "passed"

    @property
    def clean_accuracy(self) -> float:
        """The fraction of the images that the model classifies correctly, from 0 to 1."""
        return self.report.clean.accuracy

    @property
    def robust_accuracy(self) -> float | None:
        """The fraction of the images that no attack within eps broke, from 0 to 1; None where no such attack ran.

        It is an upper bound. Stronger attacks may break more.
        """
        robust = self.report.robust_accuracy
        return None if robust is None else robust.value

    @cached_property
    def evidence(self) -> dict[str, NDArray[Any]]:
        """The arrays of evidence.npz by name, one row an image: see `runtime.suite.evidence.Evidence`.

        `broken_by` int64 [N] is the row of the attack that broke the image first, -1 where none did, and -2 where the
        image was misclassified before any attack.
        """
        with np.load(self.directory / EVIDENCE, allow_pickle=False) as arrays:
            return dict(arrays)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write the report as one HTML file that needs no other, and return its path.

        Raises:
            MissingEnvironment: the extra `report` is not installed.

        """
        page = self.directory / HTML
        if not page.is_file():
            raise MissingEnvironment("the page needs the extra 'report'", hint=install("report"))
        return Path(shutil.copyfile(page, path))

    def to_json(self, path: str | PathLike[str]) -> Path:
        """Write report.json, and return its path."""
        return Path(shutil.copyfile(self.directory / REPORT, path))

    def __bool__(self) -> bool:
        """Raise, so that `if ep.verify(...)` cannot pass by accident.

        Raises:
            TypeError: always.

        """
        raise TypeError("a verdict is neither true nor false; use verdict.passed")

    def __str__(self) -> str:
        """Return the outcome and the figures in a line."""
        robust = "" if self.robust_accuracy is None else f", robust {percent(self.robust_accuracy)}"
        return f"{self.outcome}: clean {percent(self.clean_accuracy)}{robust}"

    def __repr__(self) -> str:
        """Return the same with what it is of, in a line; and a hint if the model does no better than chance."""
        line = f"<Verdict {self}, {self.report.clean.n} images, eps {radius(self.report.threat_model.eps)}>"
        guesses = [found for found in self.report.checks if found.check == CHANCE and found.state == "found"]
        return "\n".join((line, *(f"hint: {found.message}; {GUESSING}" for found in guesses)))

    def _repr_markdown_(self) -> str:
        """Return summary.md, which a notebook shows in place of the line."""
        return (self.directory / SUMMARY).read_text()


@names_arguments
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
    mean: float | Sequence[float] = (),
    std: float | Sequence[float] = (),
    bgr: bool = False,
    output: str | None = None,
    layout: Layout | None = None,
    trust: str | PathLike[str] | None = None,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
) -> Verdict:
    """Attack a model on the engine that runs it, on this machine, and judge it, as `edgeproof verify` does.

    Args:
        model: a bundle or its directory, an ONNX file, its bytes, or a PyTorch network, which is exported first.
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
        gradient_backend: the engine that computes the gradient, as "ort:cpu"; by default the one that judges.
        gradient: "auto", or "none" for attacks without gradients alone, which are weak evidence.
        classes: names of the classes.
        mean: subtracted from each channel before the model: one number, or one a channel; for images in [0, 1], and for
            ONNX files and bytes alone.
        std: divides each channel after that.
        bgr: the model takes blue first.
        output: the name of the output that holds the logits, where the model has several.
        layout: 'nchw' or 'nhwc', where the shape of x does not tell.
        trust: the file of a public key, which must have signed the bundle.
        seed: of every random number.
        out: the run directory, new or empty; by default a temporary one.

    Returns:
        The verdict. It is neither true nor false: use `verdict.passed`.

    Raises:
        UsageFault: an argument is missing, out of range, or contradicts another.
        BadBundle, BadModel, BadData: the model or the images cannot be used; the message says why.
        NonFinite: the model answers NaN or infinity.
        MissingEnvironment: an engine, an extra or a place to write is missing.

    """
    with scratch_directory() as (scratch, keep_for):
        asked = what_is_asked(
            Given(model, x, y, layout, classes), scratch, trust,
            {"backend": backend, "provider": provider, "precision": precision,
             "gradient_backend": gradient_backend, "gradient": gradient},
            {"mean": each_channel(mean), "std": each_channel(std), "bgr": bgr, "output": output},
            {"eps": eps, "attacks": attacks, "n": n, "fail_under": fail_under, "max_drop": max_drop,
             "against": None if against is None else existing(against, "against"), "expect_clean": expect_clean,
             "no_gate": no_gate, "seed": seed},
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


@names_arguments
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
    mean: float | Sequence[float] = (),
    std: float | Sequence[float] = (),
    bgr: bool = False,
    output: str | None = None,
    layout: Layout | None = None,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return the worst point that an attack finds within eps of each image: float32 [N, C, H, W] in [0, 1].

    That point is one that the model misclassifies, where the attack found one; else it is the one with the largest
    margin. An image that is misclassified already stays as it is. The attack follows every gradient that `verify`
    follows: of int8 also that of the fp32 graph.

    Args:
        model: see `verify`, as every other argument.
        x: the images.
        y: their labels.
        attack: its name, as "apgd-t"; "aa" is standard AutoAttack.
        eps: L-infinity radius, on images in [0, 1].
        precision: which graph of a bundle.
        backend: the engine that judges.
        provider: what it runs on.
        gradient_backend: the engine that computes the gradient.
        mean: subtracted from each channel before the model.
        std: divides each channel after that.
        bgr: the model takes blue first.
        output: the name of the output that holds the logits.
        layout: 'nchw' or 'nhwc', where the shape of x does not tell.
        seed: of every random number.

    Raises:
        UsageFault: there is no such attack, or it knows no eps.
        BadModel: the gradient is zero, or it is not that of the artifact; the points would say nothing.
        EdgeproofError: see `verify`.

    """
    if attack not in NAMES or not any_bounded([attack]):
        known = [name for name in NAMES if any_bounded([name])]
        raise UsageFault(
            f"{attack!r} is no attack within eps{did_you_mean(attack, known)}", hint=f"known: {', '.join(known)}"
        )
    with scratch_directory() as (scratch, _), ExitStack() as sessions:
        asked = what_is_asked(
            Given(model, x, y, layout), scratch, None,
            {"backend": backend, "provider": provider, "precision": precision, "gradient_backend": gradient_backend},
            {"mean": each_channel(mean), "std": each_channel(std), "bgr": bgr, "output": output},
            {"eps": eps, "attacks": (attack,), "no_gate": True, "seed": seed},
        )  # fmt: skip
        return worst_points(prepare_case(asked.subject(sessions.enter_context), asked.options))

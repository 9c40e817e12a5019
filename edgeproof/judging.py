"""`edgeproof.verify` and `edgeproof.attack`: the command `edgeproof verify` as functions."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeproof.arguments import each_channel, names_arguments, run_directory
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
    "unless these are too few images, one of these is probably wrong: y (numbers from 0, in the order of the logits), "
    "the range of x (0 to 255 as uint8, or 0 to 1), the normalisation (mean, std), the order of the colours (bgr)"
)
HTML, SUMMARY = FORMATS["html"].file, FORMATS["markdown"].file


@dataclass(frozen=True)
class Verdict:
    """The result of `verify` for a model, and whether the model passed its gate.

    Args:
        report: all figures, as in report.json.
        directory: the run directory. Without `out` it is temporary, and is removed together with this object.

    """

    report: Report
    directory: Path

    @property
    def outcome(self) -> str:
        """'passed', 'failed', 'inconclusive', or 'measured' if no gate was asked for."""
        return self.report.verdict

    @property
    def passed(self) -> bool:
        """Whether there was a gate and the model passed it. 'measured' and 'inconclusive' do not count as passed."""
        return self.outcome == "passed"

    @property
    def clean_accuracy(self) -> float:
        """The fraction of the images that the model classifies correctly, from 0 to 1."""
        return self.report.clean.accuracy

    @property
    def robust_accuracy(self) -> float | None:
        """The fraction of the images that are correct and that no attack within eps broke; None without such an attack.

        It is from 0 to 1, and an upper bound: stronger attacks may break more images.
        """
        robust = self.report.robust_accuracy
        return None if robust is None else robust.value

    @cached_property
    def evidence(self) -> dict[str, NDArray[Any]]:
        """The arrays of evidence.npz by name, with one row per image; see `runtime.suite.evidence.Evidence`.

        `broken_by` int64 [N] is the row of the attack that broke the image first. It is -1 if no attack did, and -2 if
        the image was misclassified before any attack.
        """
        with np.load(self.directory / EVIDENCE, allow_pickle=False) as arrays:
            return dict(arrays)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write the report as one self-contained HTML file, and return its path.

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
        """Return the outcome and the figures in one line."""
        robust = "" if self.robust_accuracy is None else f", robust {percent(self.robust_accuracy)}"
        return f"{self.outcome}: clean {percent(self.clean_accuracy)}{robust}"

    def __repr__(self) -> str:
        """Return the same with the number of images and eps, and a hint if the model is no better than chance."""
        line = f"<Verdict {self}, {self.report.clean.n} images, eps {radius(self.report.threat_model.eps)}>"
        guesses = [found for found in self.report.checks if found.check == CHANCE and found.state == "found"]
        return "\n".join((line, *(f"hint: {found.message}; {GUESSING}" for found in guesses)))

    def _repr_markdown_(self) -> str:
        """Return summary.md, which a notebook shows instead of the line."""
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
    """Attack a model on this machine, on the engine that runs it, and judge it, as `edgeproof verify` does.

    Args:
        model: a bundle or its directory, an ONNX file, its bytes, or a PyTorch network, which is exported first.
        x: the images, uint8 or floats in [0, 1]: [N, C, H, W], [N, H, W, C] or [N, H, W]; a numpy array or a tensor.
            By default, the images of the bundle.
        y: their labels: class numbers [N] in the order of the logits, or one-hot rows [N, K].
        eps: L-infinity radius, on images in [0, 1]; by default that of the bundle, and 8/255 without a bundle.
        attacks: names, such as "pgd,cw" or a list; "aa" is standard AutoAttack.
        n: judge the first n images only.
        fail_under: gate: the least robust accuracy, from 0 to 1; by default that of the bundle.
        max_drop: gate: the largest drop of robust accuracy, from 0 to below 1, from fp32 or from the run `against`.
        against: a run directory to compare with, image by image.
        expect_clean: the least clean accuracy that you expect, from 0 to 1; below it no gate passes.
        no_gate: ask for no gate, even if the bundle has one.
        precision: the graph of a bundle that is judged; by default the one that ships.
        backend: the engine that judges; `edgeproof targets` lists them.
        provider: the device or variant of the engine.
        gradient_backend: the engine that computes the gradient, such as "ort:cpu"; by default the one that judges.
        gradient: "auto", or "none" for attacks without a gradient only, which are weak evidence.
        classes: names of the classes.
        mean: subtracted from each channel of images in [0, 1] before the model: one number, or one per channel. Only
            for ONNX files and bytes.
        std: divides each channel after that; in the same form.
        bgr: whether the model takes blue first.
        output: the name of the output that holds the logits, if the model has several.
        layout: 'nchw' or 'nhwc', if the shape of x allows both.
        trust: the file of a public key; the bundle must be signed with its private key.
        seed: seeds all random numbers.
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
            {"mean": each_channel(mean, "mean"), "std": each_channel(std, "std"), "bgr": bgr, "output": output},
            {"eps": eps, "attacks": attacks, "n": n, "fail_under": fail_under, "max_drop": max_drop,
             "against": None if against is None else run_directory(against), "expect_clean": expect_clean,
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

    The worst point is one that the model misclassifies, if the attack found one; otherwise it is the point that comes
    closest to being misclassified. An image that is already misclassified is returned unchanged. The attack follows
    every gradient that `verify` follows: for int8, also that of the fp32 graph.

    Args:
        model: as for `verify`, which describes the other arguments too.
        x: the images.
        y: their labels.
        attack: the name of an attack, such as "apgd-t"; "aa" is standard AutoAttack.
        eps: L-infinity radius, on images in [0, 1].
        precision: the graph of a bundle that is attacked.
        backend: the engine that judges.
        provider: the device or variant of the engine.
        gradient_backend: the engine that computes the gradient.
        mean: subtracted from each channel before the model.
        std: divides each channel after that.
        bgr: whether the model takes blue first.
        output: the name of the output that holds the logits.
        layout: 'nchw' or 'nhwc', if the shape of x allows both.
        seed: seeds all random numbers.

    Raises:
        UsageFault: there is no such attack, or it has no eps.
        BadModel: the gradient is zero, or it is not that of the artifact; the points would be meaningless.
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
            {"mean": each_channel(mean, "mean"), "std": each_channel(std, "std"), "bgr": bgr, "output": output},
            {"eps": eps, "attacks": (attack,), "no_gate": True, "seed": seed},
        )  # fmt: skip
        return worst_points(prepare_case(asked.subject(sessions.enter_context), asked.options))

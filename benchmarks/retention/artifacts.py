"""The artifacts of one student: a bundle for each way of rounding, as `edgeproof export` writes it."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.retention.int4 import in_int4
from export.bundle.write import Claims, Precision, write_bundle
from export.network.export_network import export_network
from export.network.parity import reference_logits
from export.network.to_onnx import to_onnx
from export.precision.calibrate import Calibration, calibration_images
from export.precision.candidate import Candidate
from pipeline.data.sets import hold_out, load_dataset
from pipeline.runs.directory import TrainedRun, open_run
from runtime.bundle.opening import Bundle, open_bundle
from runtime.errors import UsageFault
from runtime.files import write_atomic
from runtime.spec import PARENT, Digest, Frozen, Text, ThreatModel, to_json

CALIBRATED = 512
"""Training images that set the ranges, and as many of the hold-out that say what int8 costs."""
CLEAN_EPS = 1 / 255
"""Where a network that was trained on clean images is attacked: at 8/255 no format leaves anything to compare."""
STUDENT = "student.json"
ORDER_SEED = 0
"""Of the order in which test images are taken: those of a folder come class by class."""


@dataclass(frozen=True)
class Format:
    """One way of rounding.

    Args:
        name: in the table.
        bundle: the directory that it lies in.
        precision: what that bundle calls it.

    """

    name: str
    bundle: str
    precision: str


FORMATS = (
    Format("fp32", "plain", PARENT),
    Format("fp16", "plain", "fp16"),
    Format("int8 plain", "plain", "int8"),
    Format("int8 as it ships", "mixed", "int8"),
    Format("int4 weights", "int4", "int8"),
)
"""The first is what the others are compared with, and lends them its gradient."""


class StudentCard(Frozen):
    """What a student is, and what is judged of it; `trained` is its method, or 'clean'."""

    name: Text
    arch: Text
    width: float
    trained: Text
    epochs: int
    data: Text
    eps: float
    n: int
    checkpoint_sha256: Digest
    recipe_sha256: Digest


@dataclass(frozen=True)
class Student:
    """A finished run of `edgeproof distill`, and how far its images may be moved.

    Args:
        run: its directory.
        eps: radius of the L-infinity ball; None: the run's own, CLEAN_EPS of one that searched for nothing.

    """

    run: Path
    eps: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Student":
        """Read RUN or RUN@EPS, the radius in 1/255."""
        path, _, eps = text.partition("@")
        return cls(Path(path), float(eps) / 255 if eps else None)


def export_student(student: Student, out: Path, n: int, root: Path, formats: Sequence[Format] = FORMATS) -> None:
    """Write student.json and the bundles of one student; what is there already stays.

    Each bundle holds the same `n` test images, drawn by a fixed seed.

    Args:
        student: whose network it is.
        out: the directory of the bundles.
        n: images to judge.
        root: where data sets known by name lie.
        formats: the bundles of these are written.

    Raises:
        UsageFault: what is there is of another network, radius or number of images.

    """
    trained = open_run(student.run, "best")
    if not _searches(trained):
        trained = open_run(student.run, "last")  # the best is chosen by PGD, which would end clean training early
    recipe, card = trained.recipe, trained.card
    eps = student.eps or (recipe.threat.eps if _searches(trained) else CLEAN_EPS)
    _describe(out / STUDENT, _card(trained, eps, n))
    data = load_dataset(recipe.data.name, recipe.data.path, root, preprocessing=recipe.data.size).numbered(card.classes)
    order = np.random.Generator(np.random.Philox(ORDER_SEED)).permutation(len(data.test))
    images = data.test.rows(np.sort(order[: len(data.test.first(n))]))
    training, held = hold_out(data.train, recipe.data.holdout, recipe.seed)
    seen, _ = calibration_images(training, images, CALIBRATED, recipe.seed)
    claims = Claims(name=recipe.name, classes=card.classes, threat_model=ThreatModel(eps=eps))
    calibration = Calibration(seen, held=held, eps=eps)
    missing = {form.bundle for form in formats if not (out / form.bundle).exists()}
    for name, precisions, keep in (("plain", (PARENT, "fp16", "int8"), ()), ("mixed", ("int8",), None)):
        if name in missing:
            export_network(
                trained.network,
                shape=card.input,
                evaluation=images,
                claims=claims,
                out=out / name,
                precisions=precisions,
                calibration=replace(calibration, keep=keep),
            )
    if "int4" in missing:
        with closing(Candidate(to_onnx(trained.network.eval(), card.input))) as single:
            four = Candidate(in_int4(single.forward))
            write_bundle(
                out / "int4",
                precisions={"int8": Precision(four.forward.model, four.gradient)},
                evaluation=images,
                reference_logits=reference_logits(trained.network, images),
                claims=claims,
            )


def student_card(out: Path) -> StudentCard:
    """Return what `export_student` says of the student whose bundles lie there."""
    return StudentCard.model_validate_json((out / STUDENT).read_bytes())


def kept_fp16(out: Path) -> tuple[str, ...] | None:
    """Return the layers that stay in fp16 where int8 is as it ships; None where that was not exported."""
    if not (out / "mixed").exists():
        return None
    calibration = open_bundle(out / "mixed").manifest.graphs["int8"].calibration
    return calibration.kept_fp16 if calibration else ()


def opened(out: Path, formats: Sequence[Format]) -> dict[str, Bundle]:
    """Return the bundles of these formats of one student by name, every byte checked."""
    return {name: open_bundle(out / name) for name in dict.fromkeys(each.bundle for each in formats)}


def _searches(trained: TrainedRun) -> bool:
    return trained.recipe.search.steps > 0


def _describe(path: Path, card: StudentCard) -> None:
    described = to_json(card)
    if path.exists() and path.read_bytes() != described:
        raise UsageFault(
            f"{path.parent} holds artifacts of another network, radius or number of images", hint="name another --out"
        )
    write_atomic(path, described)


def _card(trained: TrainedRun, eps: float, n: int) -> StudentCard:
    recipe = trained.recipe
    return StudentCard(
        name=recipe.name,
        arch=recipe.student.arch,
        width=recipe.student.width,
        trained=trained.summary.method if _searches(trained) else "clean",
        epochs=recipe.train.epochs,
        data=recipe.data.name or Path(str(recipe.data.path)).name,
        eps=eps,
        n=n,
        checkpoint_sha256=trained.checkpoint_sha256,
        recipe_sha256=trained.recipe_sha256,
    )

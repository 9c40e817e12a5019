"""The steps of `make cifar10`: each is an edgeproof command, with the file that exists once it is finished."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.directory import CHECKPOINTS, SUMMARY
from runtime.bundle.manifest import MANIFEST
from runtime.bundle.opening import open_bundle
from runtime.errors import UsageFault
from runtime.files import sha256
from runtime.images import DATA_ROOT
from runtime.records.report import REPORT

PRECISIONS = "fp32,fp16,int8"
BATCHES = "cifar-10-batches-py"
"""What torchvision calls the published files, unpacked."""


@dataclass(frozen=True)
class Way:
    """One size of the whole route: full or small.

    Args:
        teacher: the name of the teacher's recipe.
        student: the name of the student's recipe.
        images: how many test images are attacked.
        accuracy: what to expect, with its source.

    """

    teacher: str
    student: str
    images: int
    accuracy: str


FULL = Way(
    "cifar10-short-teacher",
    "cifar10-short",
    500,
    "clean 40 to 80 %, PGD 26 to 47 %, AutoAttack below that. No run of this way is known yet: the ends are those of\n"
    "two ResNet-18 by PGD-AT on CIFAR-10-JPEG, in 10 epochs (40.0, 26.3 %) and in 28 (79.2, 46.3 %);\n"
    "docs/how-to/cifar10.md",
)
SMALL = Way(
    "cifar10-small-teacher",
    "cifar10-small",
    16,
    "far from trained: below clean 42.8 and worst case 24.6 %, which a network of this size reached in three epochs\n"
    "on CIFAR-10-JPEG; docs/studies/cifar10-jpeg",
)


@dataclass(frozen=True)
class Source:
    """Where the images are: a set at `path`, or the published ones in `root`, downloaded if they are missing."""

    root: Path = DATA_ROOT
    path: Path | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The words that name the user's own set to the commands that train; none for the published images."""
        return () if self.path is None else ("--set", f"data.path={self.path}")


def source_of(data: Path | None) -> Source:
    """Return the source of the images; without `data`, the published ones, which are downloaded.

    Raises:
        UsageFault: there is no such directory.

    """
    if data is None:
        return Source()
    if not data.is_dir():
        raise UsageFault(f"DATA={data} is no directory", hint="unpack an archive first; docs/how-to/cifar10.md")
    data = data.resolve()
    return Source(root=data) if (data / BATCHES).is_dir() else Source(path=data)


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        words: of the command.
        done: the file that exists once it has finished.
        of: for `export`, the checkpoint of which `done` is to be the bundle's manifest.

    """

    words: tuple[str, ...]
    done: Path
    of: Path | None = None

    @property
    def left(self) -> bool:
        """Whether the step is not finished yet, or its bundle is of another checkpoint."""
        return not self.done.exists() or (self.of is not None and not is_of(self.done.parent, self.of))


def is_of(bundle: Path, checkpoint: Path) -> bool:
    """Return whether a bundle was exported from this checkpoint.

    Raises:
        BadBundle: it is damaged.

    """
    provenance = open_bundle(bundle).manifest.provenance
    if provenance is None or not checkpoint.is_file():
        return False
    return provenance.checkpoint_sha256 == sha256(checkpoint.read_bytes())


def steps(way: Way, source: Source, provider: str) -> tuple[Step, ...]:
    """Return the commands in order. All can be given again, except `export`: they go on, or say how they ended."""
    root = ("--data-root", str(source.root))
    teacher, student = Path("runs", way.teacher), Path("runs", way.student)
    bundle, report = Path("bundles", way.student), Path("reports", way.student)
    attack = ("--attacks", "pgd,aa", "--n", str(way.images), "--no-gate", "--provider", provider)
    return (
        Step(("teach", way.teacher, "--out", str(teacher), *root, *source.words, "--resume"), teacher / SUMMARY),
        Step(("distill", way.student, "--out", str(student), *root, *source.words, "--resume"), student / SUMMARY),
        Step(
            ("export", str(student), "--out", str(bundle), "--precision", PRECISIONS, "--ships", "fp32", *root),
            bundle / MANIFEST,
            student / CHECKPOINTS["best"],
        ),
        Step(("verify", str(bundle), *attack, "--out", str(report), "--resume"), report / REPORT),
    )


def trains(steps: Iterable[Step]) -> bool:
    """Return whether a network still has to be trained."""
    return any(step.left and step.words[0] in ("teach", "distill") for step in steps)

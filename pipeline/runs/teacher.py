"""Teachers: by name and digest, or by path; trained by edgeproof or foreign. Each is evaluated before it teaches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline.data.sets import EMBEDDED
from pipeline.methods import METHODS
from pipeline.models import Blueprint
from pipeline.models.checkpoint import NetworkCard, load_checkpoint
from pipeline.models.factory import check_made
from pipeline.models.foreign import Normalisation, load_foreign, refuse_web_page
from pipeline.models.layers import frozen
from pipeline.recipe.schema import Recipe
from pipeline.recipe.tables import TeacherTable
from pipeline.runs.directory import CHECKPOINTS, TeacherFigures
from pipeline.runs.evaluate import holdout_accuracy
from runtime.bundle.described import network_words
from runtime.errors import BadModel, BadRecipe, Page
from runtime.images.image_set import ImageSet
from runtime.words import did_you_mean, percent

MODELS = Path("models")
"""RobustBench's download directory; a teacher named cifar10/Linf/NAME is expected in models/cifar10/Linf/NAME.pt."""
WEAK = 1.5
"""A teacher is weak if its accuracy under PGD is below this multiple of chance."""


@dataclass(frozen=True)
class KnownTeacher:
    """A teacher with a name.

    Args:
        path: the location of its file, unless the recipe gives one.
        sha256: the digest that the file must have; None if no digest is published.
        foreign: the network, for a file that does not describe it.
        normalised: the normalisation of its images, if its file may not record it.

    """

    path: Path
    sha256: str | None
    foreign: Blueprint | None = None
    normalised: Normalisation = (None, None)


LTD = (
    ("cifar10/Linf/Chen2021LTD_WRN34_20", 20, "dbfc7cfe402d9ddf6cbe47c4809eab97fcccce7b6a254030cdca2640639cfa28"),
    ("cifar10/Linf/Chen2021LTD_WRN34_10", 10, "fc398a4890e6856b5dd80856076000ec9e2debdd12d9f78a66171b9ffc383983"),
    ("cifar100/Linf/Chen2021LTD_WRN34_10", 10, None),
)
"""RobustBench's entries of Chen and Lee 2021 (arXiv 2111.02331): name, width, digest. They take raw images in [0, 1].

Users of RobustBench have published the digests, for files of 738,377,702 and 184,803,174 bytes. We know of no published
digest for the third.
"""

CIFAR10: Normalisation = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
"""Mean and standard deviation as in RobustBench's code, for files that do not record them."""
DEEPMIND = (
    ("Gowal2020Uncovering_34_20", 34, 20, None),
    ("Gowal2020Uncovering_28_10_extra", 28, 10, None),
    ("Rebuffi2021Fixing_28_10_cutmix_ddpm", 28, 10, None),
    ("Gowal2021Improving_28_10_ddpm_100m", 28, 10, None),
    ("Wang2023Better_WRN-28-10", 28, 10, None),
    ("Wang2023Better_WRN-70-16", 70, 16, None),
    (
        "Bartoldson2024Adversarial_WRN-94-16", 94, 16,
        "56bbad8ad748df86e67c24dba4f59a9e7d285e583251460b2ed154017a18cb0b",
    ),
)  # fmt: skip
"""RobustBench's entries for CIFAR-10 at 8/255 that are DeepMind's WideResNet: name, depth, width, digest.

A user of RobustBench has published the digest, for a file of 1,464,289,203 bytes. We know of none for the others.
"""

TEACHERS = {
    "fashion-mini": KnownTeacher(
        EMBEDDED / "fashion-mini-teacher.safetensors",
        "918172ada6e3dbe483b839a9e2aa5886fd4fb411c3c1d22d68339738cf99bf39",
    ),
    **{
        name: KnownTeacher(MODELS / f"{name}.pt", digest, Blueprint(arch="wideresnet", depth=34, width=width))
        for name, width, digest in LTD
    },
    **{
        f"cifar10/Linf/{name}": KnownTeacher(
            MODELS / f"cifar10/Linf/{name}.pt",
            digest,
            Blueprint(arch="dm_wideresnet", depth=depth, width=width),
            CIFAR10,
        )
        for name, depth, width, digest in DEEPMIND
    },
}


@dataclass(frozen=True)
class Teacher:
    """A teacher on its device, folded and frozen.

    Args:
        network: images [B, C, H, W] to logits [B, K].
        sha256: the digest of its file.
        vouched: whether the file was compared with a digest, or is a checkpoint of edgeproof.
        figures: its accuracy on the hold-out.

    """

    network: nn.Module
    sha256: str
    vouched: bool
    figures: TeacherFigures

    def __str__(self) -> str:
        """Describe the teacher for the user before training."""
        reached = self.figures
        return (
            f"teacher: clean {percent(reached.clean)}, PGD-10 {percent(reached.pgd)} on {reached.n} hold-out images; "
            + ("" if self.vouched else "no digest of it is known, and in [teacher] this holds later runs to it: ")
            + f'sha256 = "{self.sha256}"'
        )


def prepare_teacher(
    recipe: Recipe, card: NetworkCard, holdout: ImageSet, device: torch.device, *, allow_weak: bool = False
) -> Teacher | None:
    """Load the teacher of a recipe and evaluate it; None if the method needs none.

    Args:
        recipe: names the teacher, the method and the threat model.
        card: that of the student; the teacher must have the same images and classes.
        holdout: held-out training images on which the teacher is evaluated, clean and under PGD-10.
        device: the device on which it will teach.
        allow_weak: accept a teacher whose accuracy under PGD is below 1.5 times chance.

    Raises:
        BadRecipe: there is no teacher of that name, or it belongs to other data.
        BadModel: see `load_teacher`; or the teacher is not robust.

    """
    if not METHODS[recipe.method.name].needs_teacher:
        return None
    assert recipe.teacher is not None
    network, digest, vouched = load_teacher(recipe.teacher, card)
    network = frozen(network).to(device)
    classes = len(card.classes)
    clean, pgd = holdout_accuracy(network, holdout, classes=classes, eps=recipe.threat.eps, device=device)
    if pgd < WEAK / classes and not allow_weak:
        raise BadModel(
            f"the teacher is not robust: {percent(pgd)} under PGD-10 on {len(holdout)} hold-out images "
            f"({percent(clean)} clean), below {WEAK} times the {percent(1 / classes)} of chance",
            hint="it may expect other data, classes or normalisation; --allow-weak-teacher continues all the same",
            page=Page.TEACHERS,
        )
    return Teacher(network, digest, vouched, TeacherFigures(n=len(holdout), clean=clean, pgd=pgd))


def load_teacher(table: TeacherTable, card: NetworkCard) -> tuple[nn.Module, str, bool]:
    """Return a teacher in eval mode, the SHA-256 of its file, and whether it is vouched for (see `Teacher`).

    Raises:
        BadRecipe: no teacher has that name, or its images or classes are not those of `card`.
        BadModel: the file is missing or damaged, is foreign but the recipe does not describe it, or has another digest.

    """
    path, expected, foreign = locate_teacher(table)
    refuse_web_page(path)
    digest = _sha256(path)
    if expected is not None and digest != expected:
        raise BadModel(
            f"{path} is not the expected file: its sha256 is {digest}, not {expected}",
            hint="download it again, or set teacher.sha256 to another digest that you trust",
        )
    if foreign is None:
        return _own(path, card), digest, True
    network = load_foreign(
        path,
        foreign,
        channels=card.input.channels,
        classes=len(card.classes),
        mean=table.mean,
        std=table.std,
        usual=TEACHERS[table.name].normalised if table.name else (None, None),
    )
    if foreign.factory is not None:
        check_made(foreign.factory, network, card.image, len(card.classes))
    return network, digest, expected is not None


def _own(path: Path, card: NetworkCard) -> nn.Module:
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"PK", b"\x80\x02"):
        raise BadModel(
            f"{path} is a PyTorch file, which does not record its network",
            hint='name the network in [teacher], such as arch = "wideresnet", depth = 34, width = 10',
        )
    network, own = load_checkpoint(path)
    for what in ("input", "classes"):
        theirs, ours = getattr(own, what), getattr(card, what)
        if theirs != ours:
            raise BadRecipe(
                f"teacher: its {what} is {theirs}, but that of the data is {ours}", hint="use a teacher for this data"
            )
    if own.factory is not None:  # its code may have changed since it was trained
        check_made(own.factory, network, card.image, len(card.classes))
    return network.eval()


def teacher_architecture(table: TeacherTable | None, sha256: str | None) -> str | None:
    """Return the network of the teacher with this digest, such as 'resnet18, width 0.25'.

    Return None if there was no teacher, or if its file is no longer where the recipe says.
    """
    if table is None or sha256 is None:
        return None
    path, _, foreign = _described(table)
    if foreign is not None:
        return network_words(foreign.model_dump())
    if not path.is_file() or _sha256(path) != sha256:
        return None
    return network_words(load_checkpoint(path)[1].model_dump())


def check_teacher(recipe: Recipe) -> None:
    """Check, before any data are read, that the teacher's file exists, if the method needs a teacher.

    Raises:
        BadRecipe, BadModel: see `locate_teacher`.

    """
    if METHODS[recipe.method.name].needs_teacher:
        assert recipe.teacher is not None
        locate_teacher(recipe.teacher)


def locate_teacher(table: TeacherTable) -> tuple[Path, str | None, Blueprint | None]:
    """Return the path of a teacher's file, the digest that it must have (or None), and its network if it is foreign.

    Raises:
        BadRecipe: no teacher has that name.
        BadModel: there is no file.

    """
    path, expected, foreign = _described(table)
    if not path.is_file():
        raise BadModel(
            f"there is no teacher at {path.resolve()}",
            hint="train one with `edgeproof teach`, put a downloaded one there, or set teacher.path to another place",
            page=Page.TEACHERS,
        )
    return path, expected, foreign


def _described(table: TeacherTable) -> tuple[Path, str | None, Blueprint | None]:
    """Return the same as `locate_teacher`, whether or not the file exists."""
    if table.name is None:
        assert table.path is not None
        path = table.path / CHECKPOINTS["best"] if table.path.is_dir() else table.path
        return path, table.sha256, _blueprint(table)
    if table.name not in TEACHERS:
        raise BadRecipe(
            f"teacher.name: there is no teacher named {table.name!r}{did_you_mean(table.name, TEACHERS)}",
            hint=f"known: {', '.join(TEACHERS)}",
        )
    known = TEACHERS[table.name]
    path = table.path or known.path
    if path.is_dir():
        raise BadRecipe(
            f"teacher: {path} is a directory, but {table.name} is a file",
            hint="for a run of your own at this path, leave the name out",
        )
    return path, table.sha256 or known.sha256, known.foreign


def _blueprint(table: TeacherTable) -> Blueprint | None:
    """Return the network of a foreign checkpoint; None if the file describes its network itself."""
    if table.arch is None and table.factory is None:
        return None
    return Blueprint(arch=table.arch, width=table.width or 1.0, depth=table.depth, factory=table.factory)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

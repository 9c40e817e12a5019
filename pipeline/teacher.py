"""Teachers: checkpoints by path, or those that ship with the package, known by digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pipeline.checkpoint import NetworkCard, load_checkpoint
from pipeline.data import EMBEDDED
from pipeline.recipe import TeacherTable
from pipeline.run_directory import CHECKPOINTS
from runtime.errors import BadModel, BadRecipe
from runtime.files import sha256


@dataclass(frozen=True)
class KnownTeacher:
    """A teacher with a name: where its file lies, and the digest that it must have."""

    path: Path
    sha256: str


TEACHERS = {
    "fashion-mini": KnownTeacher(
        EMBEDDED / "fashion-mini-teacher.safetensors",
        "918172ada6e3dbe483b839a9e2aa5886fd4fb411c3c1d22d68339738cf99bf39",
    ),
}


def load_teacher(table: TeacherTable) -> tuple[nn.Module, NetworkCard, str]:
    """Return a teacher in eval mode, its card and the SHA-256 of its file; a run directory stands for its best.

    Raises:
        BadRecipe: no teacher has that name.
        BadModel: the file is missing, damaged, or not the one that the name stands for.

    """
    if table.path is not None:
        path = table.path / CHECKPOINTS["best"] if table.path.is_dir() else table.path
        network, card = load_checkpoint(path)
        return network.eval(), card, sha256(path.read_bytes())
    if table.name not in TEACHERS:
        raise BadRecipe(f"teacher.name: no teacher is called {table.name!r}", hint=f"known: {', '.join(TEACHERS)}")
    known = TEACHERS[table.name]
    network, card = load_checkpoint(known.path)
    digest = sha256(known.path.read_bytes())
    if digest != known.sha256:
        raise BadModel(f"{known.path} is not the teacher {table.name}: its digest differs", hint="install again")
    return network.eval(), card, digest

"""The errors that edgeproof raises, each with a hint and the exit code of the process it ends."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

DEFECT = 70
"""Exit code of what nobody expected (EX_SOFTWARE of sysexits.h); never 1, which says that a gate failed."""
OWN_PACKAGES = ("runtime", "export", "pipeline")
NEWER_PYTHON = {"tomllib": "3.11"}
"""Modules of the standard library that an extra needs, and the Python that has them."""


class Page(Enum):
    """The pages that errors send people to, where a remedy takes more than a line; the one place that names them."""

    ATTESTATIONS = "attestations.md"
    DERIVATIVES = "reference/gradient.md#operations"
    IMAGES = "how-to/own-data.md"
    JUDGES = "reference/judges.md"
    MASKING = "explanation/masking.md"
    ONNX = "your-own-model.md"
    ON_A_GPU = "gpu.md"
    OPENVINO = "openvino.md"
    PRECISION = "precision.md"
    RECIPES = "recipes.md"
    SIGNING = "signing.md"
    TEACHERS = "how-to/own-teacher.md"
    TENSORRT = "tensorrt.md"

    def __str__(self) -> str:
        """Return where it lies in a clone."""
        return f"docs/{self.value}"


class EdgeproofError(Exception):
    """Something the user can act on: what is wrong, and what to do about it.

    Args:
        message: one sentence, naming the file, field, image or node concerned.
        hint: what to do; printed on a line of its own.
        page: where more is said about it, printed below; by default what is said of this kind of error.

    """

    exit_code = DEFECT
    about: ClassVar[Page | None] = None
    """The page on errors of this kind."""

    def __init__(self, message: str, *, hint: str | None = None, page: Page | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.page = page or self.about


class UsageFault(EdgeproofError):
    """The command line can be rejected without looking into any file."""

    exit_code = 2


class BadInput(EdgeproofError):
    """A file or value does not hold what it should."""

    exit_code = 3


class BadBundle(BadInput):
    """A bundle is damaged, incomplete or not a bundle."""


class BadSignature(BadBundle):
    """A bundle is unsigned where a signature is asked for, or its signature does not hold."""

    about = Page.SIGNING


class BadAttestation(BadInput):
    """An attestation does not hold, is of something else, or does not meet a policy."""

    about = Page.ATTESTATIONS


class Rollback(BadBundle):
    """A bundle is older than what this device has accepted of its name, or another one of the same version."""

    about = Page.SIGNING


class BadData(BadInput):
    """An image set is missing, damaged or does not fit the model."""


class BadImages(BadData):
    """Images, labels or names of classes cannot be read as they are, or do not fit each other."""

    about = Page.IMAGES


class BadModel(BadInput):
    """A graph or checkpoint cannot be used."""


class BadRun(BadInput):
    """A run directory is damaged, or of another request than the one that would go on with it."""


class BadRecipe(BadInput):
    """A recipe has a wrong key or value."""

    about = Page.RECIPES


class MissingEnvironment(EdgeproofError):
    """The machine lacks something: a GPU, a library, an extra."""

    exit_code = 4


class GraphRefused(BadModel):
    """TensorRT's parser does not take a graph."""

    about = Page.TENSORRT


class EngineFault(MissingEnvironment):
    """TensorRT builds, loads or runs no engine of a graph that it took, here and now."""


class JudgeFault(MissingEnvironment):
    """A judge's process ended, hung or failed: it answers nothing, here and now."""


class BadAnswer(BadModel):
    """A judge's process writes something else than its protocol says."""

    about = Page.JUDGES


class OutOfMemory(MissingEnvironment):
    """What was asked for at once does not fit the memory, of the machine or of the GPU; less may."""


class NonFinite(EdgeproofError):
    """The artifact returned NaN or infinity: no verdict can be drawn."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """Return what an error says in one line, its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def install(extra: str) -> str:
    """Return how an extra is installed. No index has edgeproof: it comes from a clone, or from a wheel of one."""
    return f"pip install '.[{extra}]' in a clone of edgeproof"


def missing_extra(what: str, extras: tuple[str, ...], error: ImportError) -> Exception:
    """Return the error that says what `what`, a command or data set of these extras, lacks.

    It is `error` itself where there is no extra to install, or where a module of edgeproof is at fault.
    """
    module = (error.name or "").partition(".")[0]
    if not extras or module in OWN_PACKAGES:
        return error
    if module in NEWER_PYTHON:
        return MissingEnvironment(
            f"{what} needs Python {NEWER_PYTHON[module]} or newer",
            hint="training needs it; `edgeproof verify` runs on this Python",
        )
    extra = ",".join(extras)
    absent = isinstance(error, ModuleNotFoundError)
    return MissingEnvironment(
        f"{what} needs the extra {extra!r}: " + (f"{error.name} is not installed" if absent else str(error)),
        hint=install(extra) + ("" if absent else ", in an environment of its own"),
    )

"""The errors that edgeproof raises, each with a hint and an exit code."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

DEFECT = 70
"""Exit code of an unexpected error (EX_SOFTWARE of sysexits.h). It is never 1, which says that a gate failed."""
OWN_PACKAGES = ("runtime", "export", "pipeline", "edgeproof")
NEWER_PYTHON = {"tomllib": "3.11"}
"""Standard-library modules that an extra needs, and the first Python that has each."""


class Page(Enum):
    """The documentation pages to which errors refer, where a remedy takes more than a line."""

    ATTESTATIONS = "attestations.md"
    DERIVATIVES = "reference/gradient.md#operations"
    IMAGES = "reference/images.md"
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
        """Return the page's path in a clone."""
        return f"docs/{self.value}"


class EdgeproofError(Exception):
    """An error that the user can act on: what is wrong, and what to do about it.

    Args:
        message: one sentence that names the file, field, image or node concerned.
        hint: what to do; printed on a line of its own.
        page: the page that says more, printed below the hint; `about` by default.

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
    """A file or value is not what it should be."""

    exit_code = 3


class BadBundle(BadInput):
    """A bundle is damaged, incomplete or not a bundle."""


class BadSignature(BadBundle):
    """A bundle lacks the signature that is required, or its signature is not valid."""

    about = Page.SIGNING


class BadAttestation(BadInput):
    """An attestation is not valid, is about another artifact, or does not meet a policy."""

    about = Page.ATTESTATIONS


class Rollback(BadBundle):
    """The device has accepted a newer bundle of this name, or a different one of the same version."""

    about = Page.SIGNING


class BadData(BadInput):
    """An image set is missing, damaged or does not fit the model."""


class BadImages(BadData):
    """Images, labels or class names cannot be read, or do not fit each other."""

    about = Page.IMAGES


class BadModel(BadInput):
    """A graph or checkpoint cannot be used."""


class BadRun(BadInput):
    """A run directory is damaged, or its request differs from the one that would resume it."""


class BadRecipe(BadInput):
    """A recipe has a wrong key or value."""

    about = Page.RECIPES


class MissingEnvironment(EdgeproofError):
    """The machine lacks something: a GPU, a library, an extra."""

    exit_code = 4


class MissingExtra(MissingEnvironment, ImportError):
    """What is asked for needs an extra that is not installed; `except ImportError` catches it, as for any import."""


class GraphRefused(BadModel):
    """TensorRT's parser rejects a graph."""

    about = Page.TENSORRT


class EngineFault(MissingEnvironment):
    """TensorRT parsed a graph, but cannot build, load or run its engine on this machine now."""


class JudgeFault(MissingEnvironment):
    """A judge's process ended, hung or failed, so it gives no answer."""


class BadAnswer(BadModel):
    """A judge's process writes something that its protocol does not allow."""

    about = Page.JUDGES


class OutOfMemory(MissingEnvironment):
    """A batch does not fit into the memory of the machine or of the GPU; a smaller one may."""


class NonFinite(EdgeproofError):
    """The artifact returned NaN or infinity: no verdict can be drawn."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def install(extra: str) -> str:
    """Return the command that installs an extra. No package index has edgeproof, so it is installed from a clone."""
    return f"pip install '.[{extra}]' in a clone of edgeproof"


def missing_extra(what: str, extras: tuple[str, ...], error: ImportError) -> Exception:
    """Return the error that names the extra which a failed import needs.

    Args:
        what: the command or data set whose import failed.
        extras: the extras that it needs.
        error: returned as it is if there is no extra to install, if a module of edgeproof is missing, or if it already
            names an extra.

    """
    module = (error.name or "").partition(".")[0]
    if not extras or module in OWN_PACKAGES or isinstance(error, MissingExtra):
        return error
    if module in NEWER_PYTHON:
        return MissingEnvironment(
            f"{what} needs Python {NEWER_PYTHON[module]} or newer",
            hint="training needs it; `edgeproof verify` runs on this Python",
        )
    extra = ",".join(extras)
    absent = isinstance(error, ModuleNotFoundError)
    return MissingExtra(
        f"{what} needs the extra {extra!r}: " + (f"{error.name} is not installed" if absent else str(error)),
        hint=install(extra) + ("" if absent else ", in an environment of its own"),
    )

"""The errors that edgeproof raises, each with a hint and the exit code of the process it ends."""

from __future__ import annotations


class EdgeproofError(Exception):
    """Something the user can act on: what is wrong, and what to do about it.

    Args:
        message: one sentence, naming the file, field, image or node concerned.
        hint: what to do; printed on a line of its own.

    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageFault(EdgeproofError):
    """The command line can be rejected without looking into any file."""

    exit_code = 2


class BadInput(EdgeproofError):
    """A file or value does not hold what it should."""

    exit_code = 3


class BadBundle(BadInput):
    """A bundle is damaged, incomplete or not a bundle."""


class BadData(BadInput):
    """An image set is missing, damaged or does not fit the model."""


class BadModel(BadInput):
    """A graph or checkpoint cannot be used."""


class BadRecipe(BadInput):
    """A recipe has a wrong key or value."""


class MissingEnvironment(EdgeproofError):
    """The machine lacks something: a GPU, a library, an extra."""

    exit_code = 4


class NonFinite(EdgeproofError):
    """The artifact returned NaN or infinity: no verdict can be drawn."""

    exit_code = 5

"""The seam between a model and everything that attacks it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.spec import JudgeCommand, Precision

Array = Any
"""An array of any namespace that array-api-compat knows; attacks never ask which."""

INPUT, LOGITS, VALUE, GRADIENT = "input", "logits", "value", "gradient"
"""Names in a bundle's graphs: the images, and what is answered; every other input is called as a field of LossSpec."""
FORWARD_OUTPUTS, GRADIENT_OUTPUTS = (LOGITS,), (LOGITS, VALUE, GRADIENT)
"""Outputs of a classifier's graph, and of its gradient graph, in the order of a session's answers."""


@dataclass(frozen=True)
class LossSpec:
    """A loss that is raised, one row an image; B images, K classes.

    The value of row i is the sum of the four named losses by `weights`, plus `<cotangent_i, z_i>`:
    cross-entropy, margin max_{j != y} z_j - z_y, DLR, and targeted DLR (formulas: runtime/attacks/losses.py).

    Args:
        weights: float32 [B, 4], the weight of cross-entropy, margin, DLR and targeted DLR.
        label: float32 [B, K], one-hot true class.
        target: float32 [B, K], one-hot target class; zeros where no weight asks for it.
        cotangent: float32 [B, K], for losses linear in the logits (FAB's z_t - z_y).

    """

    weights: Array
    label: Array
    target: Array
    cotangent: Array

    def rows(self, index: Any) -> LossSpec:
        """Return the rows that `index` (a slice or an integer array) selects."""
        return LossSpec(*(getattr(self, field.name)[index, ...] for field in fields(self)))


@dataclass(frozen=True)
class GraphFacts:
    """What an artifact's graph says of itself, whatever it is called (`runtime.graph.facts`).

    Args:
        quantised: it rounds to integers, or computes in them.
        computes_in: the narrowest floating-point type in it, as 'float16'.
        staircases: operations between image and logits that answer in steps, as 'Round', 'Sign' or a comparison; those
            of quantisation are not among them.
        takes_bytes: all that it sees of an image is each pixel rounded to a byte.
        ranges_of_batch: it quantises by a range that it finds in the whole batch, so that an image is answered
            otherwise beside others: each has to be run by itself.

    """

    quantised: bool = False
    computes_in: str = "float32"
    staircases: tuple[str, ...] = ()
    takes_bytes: bool = False
    ranges_of_batch: bool = False

    @property
    def stepped(self) -> bool:
        """Whether its slopes are no derivative: a gradient of its own is a surrogate, which may mislead."""
        return self.quantised or bool(self.staircases)

    @property
    def precision(self) -> Precision:
        """The precision that it is: an int8 graph may hold parts in float16."""
        if self.quantised:
            return "int8"
        return "fp32" if self.computes_in in ("float32", "float64") else "fp16"


@dataclass(frozen=True)
class SessionCard:
    """What was attacked: goes into the report's `artifact`.

    `differentiable`: `loss_gradient` answers. `tf32`: a GPU may round the factors of float32 products to TF32.
    `rounds_apart`: kernels are chosen by timing, for artifact and gradient graph apart.
    `written_out`: the gradient graph has other steps than the artifact, which answer the same but for rounding.
    `facts`: of the artifact's graph, or network; what decides how it is attacked.
    `command`: the process that answers; None where an engine of ours does.
    """

    sha256: str
    precision: str
    backend: str
    provider: str
    device: str
    engine_sha256: str | None = None
    gradient_sha256: str | None = None
    differentiable: bool = True
    tf32: bool = False
    rounds_apart: bool = False
    written_out: bool = False
    facts: GraphFacts = GraphFacts()
    command: JudgeCommand | None = None


@dataclass(frozen=True)
class Batching:
    """How a session is best asked.

    Args:
        largest: images at once.
        full: whether batches should be of few sizes and full: where what it runs is made anew for each size, and
            starting it takes long beside an image. On a CPU neither is so.

    """

    largest: int = 64
    full: bool = False


Self = TypeVar("Self", bound="Session")


class Session(Protocol):
    """A classifier as its attackers see it; whoever opens one closes it, by `with`.

    Images x are float32 [B, C, H, W] in [0, 1], logits float32 [B, K].
    """

    def logits(self, x: Array) -> Array:
        """Return the logits of the artifact itself: what the deployed model answers."""

    def loss_gradient(self, x: Array, loss: LossSpec) -> tuple[Array, Array, Array]:
        """Return (logits [B, K], loss value [B], its gradient [B, C, H, W]) in one pass, a row an image."""

    def card(self) -> SessionCard:
        """Return the artifact's digest, precision, backend, provider and device."""

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return how it is best asked for images of one shape."""
        return Batching()

    def unoptimised(self) -> Callable[[], Session] | None:
        """Return what opens the same artifact without the engine's optimisations; None where it cannot be."""
        return None

    def close(self) -> None:
        """Let go of what the session holds beside memory of Python's; a second time nothing happens."""
        return

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

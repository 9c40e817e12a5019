"""The seam between a model and everything that attacks it: what judges points, and what lends the gradient to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.errors import BadModel

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

    `gradient_backend`, `gradient_provider` and `gradient_device`: what differentiates; None where it is what judges.
    `library_sha256`: of the file of a plugin that runs it; it may load others.
    `differentiable`: `loss_gradient` answers. `tf32`: a GPU may round the factors of float32 products to TF32.
    `rounds_apart`: kernels are chosen by timing, for artifact and gradient graph apart.
    `written_out`: the gradient graph has other steps than the artifact, which answer the same but for rounding.
    `facts`: of the artifact's graph, or network; what decides how it is attacked.
    `judge_command`: the process that answers; None where an engine of ours does.
    """

    sha256: str
    precision: str
    backend: str
    provider: str
    device: str
    engine_sha256: str | None = None
    library_sha256: str | None = None
    gradient_sha256: str | None = None
    gradient_backend: str | None = None
    gradient_provider: str | None = None
    gradient_device: str | None = None
    differentiable: bool = True
    tf32: bool = False
    rounds_apart: bool = False
    written_out: bool = False
    facts: GraphFacts = GraphFacts()
    judge_command: JudgeCommand | None = None


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


Self = TypeVar("Self", bound="Opened")


class Opened(ABC):
    """A graph on an engine; whoever opens one closes it, by `with`.

    Images x are float32 [B, C, H, W] in [0, 1], logits float32 [B, K].
    """

    @abstractmethod
    def card(self) -> SessionCard:
        """Return the artifact's digest, precision, backend, provider and device."""

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return how it is best asked for images of one shape."""
        return Batching()

    def confirm(self) -> None:
        """Raise `BadModel` where what was answered since the last time is in doubt: a CUDA graph that went wrong."""
        return

    def close(self) -> None:
        """Let go of what the session holds beside memory of Python's; a second time nothing happens."""
        return

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Judge(Opened):
    """What decides whether a point breaks the artifact: the engine that ships, which needs a forward pass alone."""

    @abstractmethod
    def logits(self, x: Array) -> Array:
        """Return the logits of the artifact itself: what the deployed model answers."""

    def unoptimised(self) -> Callable[[], Judge] | None:
        """Return what opens the same artifact without the engine's optimisations; None where it cannot be."""
        return None


class Differentiator(Opened):
    """What lends attacks a gradient. Its logits say how far it can be believed; they decide of no point."""

    @abstractmethod
    def loss_gradient(self, x: Array, loss: LossSpec) -> tuple[Array, Array, Array]:
        """Return (logits [B, K], loss value [B], its gradient [B, C, H, W]) in one pass, a row an image."""


class Session(Judge, Differentiator):
    """A classifier as its attackers see it: what judges, and the gradient that they follow."""


class BorrowedGradient(Session):
    """A judge whose attackers follow a gradient from elsewhere: the answers of the one, the slopes of the other.

    Args:
        judge: answers, and is what the card says.
        lender: its gradient graph is followed; None where no attack follows any.

    """

    def __init__(self, judge: Judge, lender: Differentiator | None) -> None:
        self._judge = judge
        self._lender = lender

    def logits(self, x: Array) -> Array:
        """Return the judge's logits."""
        return self._judge.logits(x)

    def loss_gradient(self, x: Array, loss: LossSpec) -> tuple[Array, Array, Array]:
        """Return the lender's logits, values and gradients.

        Raises:
            BadModel: nothing lends one.

        """
        if self._lender is None:
            raise BadModel("nothing differentiates this artifact", hint="--gradient-backend ort, or --gradient none")
        return self._lender.loss_gradient(x, loss)

    def card(self) -> SessionCard:
        """Return the judge's card, and who lends: the gradient rounds apart from it, so every point is put to it."""
        mine = self._judge.card()
        if self._lender is None:
            return replace(mine, gradient_sha256=None, differentiable=False)
        its = self._lender.card()
        return replace(
            mine,
            gradient_sha256=its.gradient_sha256,
            gradient_backend=its.backend,
            gradient_provider=its.provider,
            gradient_device=its.device,
            differentiable=its.differentiable,
            rounds_apart=True,
        )

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return what suits both: full where one of them asks for it, and no larger than either takes."""
        both = [each.batching(image) for each in (self._judge, self._lender) if each]
        return Batching(min(each.largest for each in both), full=any(each.full for each in both))

    def unoptimised(self) -> Callable[[], Judge] | None:
        """Return what opens the judge's artifact without its engine's optimisations."""
        return self._judge.unoptimised()

    def confirm(self) -> None:
        """Confirm what both answered."""
        self._judge.confirm()
        if self._lender is not None:
            self._lender.confirm()

    def close(self) -> None:
        """Close both."""
        self._judge.close()
        if self._lender is not None:
            self._lender.close()

"""The interface between a model and its attacks: the judge, which classifies points, and the lender of gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.spec import JudgeCommand, Precision

Array = Any
"""An array of any namespace that array-api-compat knows. Attacks do not depend on which it is."""

INPUT, LOGITS, VALUE, GRADIENT = "input", "logits", "value", "gradient"
"""Names in a bundle's graphs: the images and the outputs. Every other input has the name of a field of LossSpec."""
FORWARD_OUTPUTS, GRADIENT_OUTPUTS = (LOGITS,), (LOGITS, VALUE, GRADIENT)
"""The outputs of a classifier's graph and of its gradient graph, in the order in which a session returns them."""


@dataclass(frozen=True)
class LossSpec:
    """The loss that an attack raises, one row per image, for B images and K classes.

    The value of row i is the sum of four losses, weighted by `weights`, plus `<cotangent_i, z_i>`. The four are
    cross-entropy, margin max_{j != y} z_j - z_y, DLR and targeted DLR (formulas: runtime/attacks/losses.py).

    Args:
        weights: float32 [B, 4], the weight of cross-entropy, margin, DLR and targeted DLR.
        label: float32 [B, K], the true class, one-hot.
        target: float32 [B, K], the target class, one-hot; zeros if targeted DLR has no weight.
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
    """Facts read from an artifact's graph, whatever the bundle calls it (`runtime.graph.facts`).

    Args:
        quantised: the graph rounds to integers, or computes in them.
        computes_in: the narrowest floating-point type in the graph, such as 'float16'.
        staircases: operations between image and logits whose output changes in steps, such as 'Round', 'Sign' or a
            comparison; those of quantisation are not listed.
        takes_bytes: the graph depends on each pixel only through its value rounded to a byte.
        ranges_of_batch: the graph quantises by a range taken over the whole batch, so that an image's logits depend
            on the other images. Each image has to be run alone.

    """

    quantised: bool = False
    computes_in: str = "float32"
    staircases: tuple[str, ...] = ()
    takes_bytes: bool = False
    ranges_of_batch: bool = False

    @property
    def stepped(self) -> bool:
        """Whether the graph has no true derivative: its gradient is a surrogate, which may mislead."""
        return self.quantised or bool(self.staircases)

    @property
    def precision(self) -> Precision:
        """The precision of the graph. An int8 graph may hold parts in float16."""
        if self.quantised:
            return "int8"
        return "fp32" if self.computes_in in ("float32", "float64") else "fp16"


@dataclass(frozen=True)
class SessionCard:
    """What is attacked, and by which engines it runs; the report's `artifact` records it.

    `gradient_backend`, `gradient_provider` and `gradient_device`: the lender; None if the judge differentiates.
    `library_sha256`: digest of the plugin's file that runs the artifact; a plugin may load other files.
    `differentiable`: `loss_gradient` answers. `tf32`: a GPU may round the factors of float32 products to TF32.
    `rounds_apart`: kernels are chosen separately for artifact and gradient graph, so they may round differently.
    `written_out`: the gradient graph spells some steps of the artifact out in others that are equal but for rounding.
    `facts`: of the artifact's graph or network; they decide how it is attacked.
    `judge_command`: the process that judges; None if an engine of edgeproof judges.
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
    """The batches that suit a session.

    Args:
        largest: the most images in a batch.
        full: whether batches should be full and of few sizes. That pays if the engine prepares anew for each size, or
            if a start takes long compared with one image. On a CPU neither holds.

    """

    largest: int = 64
    full: bool = False


Self = TypeVar("Self", bound="Opened")


class Opened(ABC):
    """A graph on an engine. Its opener closes it, with a `with` statement.

    Images x are float32 [B, C, H, W] in [0, 1], logits float32 [B, K].
    """

    @abstractmethod
    def card(self) -> SessionCard:
        """Return the artifact's digest, precision, backend, provider and device."""

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return the batches that suit it, for images of the shape [C, H, W]."""
        return Batching()

    def confirm(self) -> None:
        """Check the answers since the last call; raise `BadModel` if they are in doubt, as after a bad CUDA graph."""
        return

    def close(self) -> None:
        """Release what the session holds outside Python's memory; a second call does nothing."""
        return

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Judge(Opened):
    """The engine that ships, which decides whether a point breaks the artifact. It needs only a forward pass."""

    @abstractmethod
    def logits(self, x: Array) -> Array:
        """Return the artifact's own logits [B, K], as the deployed model computes them."""

    def unoptimised(self) -> Callable[[], Judge] | None:
        """Return a function that opens the same artifact without the engine's optimisations; None if there is none."""
        return None


class Differentiator(Opened):
    """The lender: it computes the gradient for attacks. Its logits serve only to compare it with the judge."""

    @abstractmethod
    def loss_gradient(self, x: Array, loss: LossSpec) -> tuple[Array, Array, Array]:
        """Return logits [B, K], loss [B] and the loss's gradient in x [B, C, H, W], from one pass."""


class Session(Judge, Differentiator):
    """A classifier as attacks see it: it judges points, and gives the gradient that they follow."""


class BorrowedGradient(Session):
    """A session whose judge gives the logits and whose lender gives the gradient.

    Args:
        judge: gives the logits, and the card.
        lender: gives the gradient; None if no attack follows one.

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
            BadModel: there is no lender.

        """
        if self._lender is None:
            raise BadModel(
                "no engine computes a gradient here", hint="choose --gradient-backend ort, or --gradient none"
            )
        return self._lender.loss_gradient(x, loss)

    def card(self) -> SessionCard:
        """Return the judge's card with the lender's fields. The two round apart, so every point is judged."""
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
        """Return batches that suit both: full if either asks for it, and no larger than either takes."""
        both = [each.batching(image) for each in (self._judge, self._lender) if each]
        return Batching(min(each.largest for each in both), full=any(each.full for each in both))

    def unoptimised(self) -> Callable[[], Judge] | None:
        """Return a function that opens the judge's artifact without its engine's optimisations."""
        return self._judge.unoptimised()

    def confirm(self) -> None:
        """Check the answers of both."""
        self._judge.confirm()
        if self._lender is not None:
            self._lender.confirm()

    def close(self) -> None:
        """Close both."""
        self._judge.close()
        if self._lender is not None:
            self._lender.close()

"""The oracle of an attack: gradients and logits in batches, and the proof that an image is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from array_api_compat import array_namespace, device, is_cupy_array, is_torch_array

from runtime.attacks.geometry import TOLERANCE, linf
from runtime.attacks.losses import CROSS_ENTROPY, margin
from runtime.errors import NonFinite
from runtime.words import radius

if TYPE_CHECKING:
    from runtime.attacks.passes import Headway
    from runtime.session import LossSpec, Session

Record = TypeVar("Record")
Witness = Callable[[Any], Any]
"""A second engine that runs the same graph on the judge's points: float32 numpy, x [B, C, H, W] to logits [B, K]."""

FLAT = 1e-31
"""A gradient whose largest entry is below this is near the end of float32's range (1e-38); smaller entries are lost."""
INSIDE = 2.0**-20
"""Gradients are asked no nearer to 0 and 1 than this, so that the slope into the box is returned.

At 0 itself, the gradient of a ReLU, an absolute value or a root is 0 by convention, and a pixel there would stay.
"""
GRADIENTS_IN = "float32"
"""The type in which every gradient graph computes, whatever the artifact's type."""


@dataclass(frozen=True)
class Points:
    """Images under attack, one row per image.

    Args:
        x: float32 [B, C, H, W] in [0, 1], the clean images; an array of the session's framework.
        one_hot: float32 [B, K], their true classes; of the session's framework.
        label: int64 [B], their true classes; numpy, as the next two.
        index: int64 [B], each image's index in the evaluation set.
        row: int64 [B], each image's row in the chunk with which the attack began.

    """

    x: Any
    one_hot: Any
    label: Any
    index: Any
    row: Any

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.label)

    def rows(self, mask: Any) -> Points:
        """Return the images where the numpy boolean array `mask` [B] is set."""
        return keep(self, mask)


class Oracle:
    """Asks a session in batches of `batch` rows, counts the passes of images, and refuses answers that are not finite.

    Attributes:
        headway: follows every pass for a progress bar; None without one.
        forwards: images whose logits were asked of the artifact.
        gradients: images whose gradient was asked.
        zero_gradient: indices in the set of images that the gradient graph, when first asked, classified correctly
            with a gradient of zero in every pixel.
        spared: indices in the set of images with a point that the judge classifies correctly and the witness does
            not; empty without a witness.
        hints_hold: whether the gradient graph rounds as the artifact does, so that both give the same classes. It is
            False if the artifact has steps or another type, if TF32 is on, if kernels for the two were chosen
            separately, or if the gradient graph writes out some steps in others, which round differently.

    """

    def __init__(
        self, session: Session, batch: int, witness: Witness | None = None, headway: Headway | None = None
    ) -> None:
        self.session = session
        self.batch = batch
        self.witness = witness
        self.headway = headway
        self.forwards = 0
        self.gradients = 0
        self.zero_gradient: set[int] = set()
        self.spared: set[int] = set()
        card = session.card()
        smooth = card.facts.computes_in == GRADIENTS_IN and not card.facts.stepped
        self.hints_hold = smooth and not (card.tf32 or card.rounds_apart or card.written_out)
        self._asked = np.zeros(0, np.int64)

    def logits(self, points: Points, x: Any) -> Any:
        """Return the artifact's own logits at x: float32 [B, K], numpy.

        Raises:
            NonFinite: a logit is NaN or infinite; names the image.

        """
        self.forwards += len(points)
        z = np.concatenate([to_numpy(self.session.logits(x[rows, ...])) for rows in self._batches(points)])
        _refuse_non_finite(z, points, "logit")
        self._note(points, gradient=False)
        return z

    def hear_witness(self, points: Points, x: Any, z: Any) -> None:
        """Ask the witness about points within eps, where the judge's logits are z; note where only the judge is right.

        Points that a search merely passes are left out: at the judge's own boundary, rounding decides the class.
        """
        right = predictions(z) == points.label
        if self.witness is not None and right.any():
            rows, x = points.rows(right), to_numpy(select(x, right))
            theirs = np.concatenate([self.witness(x[part, ...]) for part in self._batches(rows)])
            self.spared.update(rows.index[predictions(theirs) != rows.label].tolist())

    def loss_gradient(self, points: Points, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return the gradient graph's logits [B, K] (numpy), loss [B] and gradient [B, C, H, W], at x moved INSIDE.

        If cross-entropy is flat in float32, as with large logits, the margin replaces it: see `_steepened`.

        Raises:
            NonFinite: a logit, loss or gradient is NaN or infinite; names the image.

        """
        z, value, gradient = self._steepened(points, x, loss, *self._ask(points, x, loss))
        self._note_zero_gradients(points, z, gradient)
        self._note(points, gradient=True)
        return z, value, gradient

    def _note(self, points: Points, *, gradient: bool) -> None:
        if self.headway:
            self.headway.asked(points.row, gradient=gradient)

    def _ask(self, points: Points, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        self.gradients += len(points)
        xp = array_namespace(x)
        x = xp.clip(x, INSIDE, 1 - INSIDE)
        parts = [self.session.loss_gradient(x[rows, ...], loss.rows(rows)) for rows in self._batches(points)]
        z, value, gradient = (part[0] if len(parts) == 1 else xp.concat(part) for part in zip(*parts, strict=True))
        z = to_numpy(z)
        for what, array in (("logit", z), ("loss", value), ("gradient", gradient)):
            _refuse_non_finite(array, points, what)
        return z, value, gradient

    def _steepened(
        self, points: Points, x: Any, loss: LossSpec, z: Any, value: Any, gradient: Any
    ) -> tuple[Any, Any, Any]:
        """Replace cross-entropy by the margin in rows where its gradient is FLAT, as it is if the logits are far apart.

        A row keeps cross-entropy if the margin is flat too. The margin of such a row is negative, and so below every
        value of cross-entropy: the highest loss stays the highest. Costs a gradient for each flat row.
        """
        xp = array_namespace(gradient)
        entropic = to_numpy(loss.weights[:, CROSS_ENTROPY]) > 0
        if not entropic.any():
            return z, value, gradient
        flat = entropic & _steepest_under(gradient, FLAT) & (predictions(z) == points.label)
        if not flat.any():
            return z, value, gradient
        rows = points.rows(flat)
        _, margin_value, margin_gradient = self._ask(rows, select(x, flat), margin(rows.one_hot))
        taken = np.zeros(len(points), bool)
        taken[flat] = ~_steepest_under(margin_gradient, FLAT)
        position = xp.asarray(np.maximum(np.cumsum(flat) - 1, 0), device=device(gradient))
        value = xp.where(column(taken, value), xp.take(margin_value, position), value)
        return z, value, choose(taken, xp.take(margin_gradient, position, axis=0), gradient)

    def _note_zero_gradients(self, points: Points, z: Any, gradient: Any) -> None:
        first = ~np.isin(points.index, self._asked)
        if not first.any():
            return
        xp = array_namespace(gradient)
        zero = to_numpy(xp.all(xp.reshape(gradient, (len(points), -1)) == 0, axis=1))
        self.zero_gradient.update(points.index[first & zero & (predictions(z) == points.label)].tolist())
        self._asked = np.union1d(self._asked, points.index)

    def _batches(self, points: Points) -> list[slice]:
        n = len(points)
        return [slice(start, min(start + self.batch, n)) for start in range(0, n, self.batch)]


class Found:
    """The result of an attack on a chunk of images: a point for each, and the artifact's answer at it.

    Attributes:
        x: float32 [B, C, H, W], the point that broke the image, or else the judged point with the largest margin.
        broken: bool [B]. Set only by `judge`, on the artifact's own forward pass.
        prediction: int64 [B], the artifact's class at x.
        margin: float32 [B], max_{j != y} z_j - z_y at x, positive where x is misclassified.
        linf: float64 [B], the L-infinity distance of x from the clean image.

    """

    def __init__(self, points: Points, eps: float) -> None:
        self.eps = eps
        self.x = to_numpy(points.x).copy()
        self.broken = np.zeros(len(points), bool)
        self.prediction = points.label.copy()
        self.margin = np.full(len(points), -np.inf, np.float32)
        self.linf = np.zeros(len(points))

    def judge(self, oracle: Oracle, points: Points, x: Any, hint: Any | None = None) -> Any:
        """Judge x, keep each image's worst point, and return which images survive: bool [B], numpy.

        If `Oracle.hints_hold`, judging only the hinted rows misses at most what changes class within INSIDE of an end
        of the box. If not, all rows are judged.

        Args:
            oracle: runs the artifact.
            points: the images, in the rows of x.
            x: float32 [B, C, H, W].
            hint: the gradient graph's logits [B, K]; only rows that it misclassifies are judged. None judges all.

        """
        standing = np.ones(len(points), bool)
        doubtful = standing if hint is None or not oracle.hints_hold else predictions(hint) != points.label
        if doubtful.any():
            standing[doubtful] = ~self._try(oracle, points.rows(doubtful), select(x, doubtful))
        return standing

    def _try(self, oracle: Oracle, points: Points, x: Any) -> Any:
        z = oracle.logits(points, x)
        oracle.hear_witness(points, x, z)
        broken, margin = predictions(z) != points.label, margins(z, points.label)
        worse = broken | (margin > self.margin[points.row])
        if worse.any():
            self._take(points.rows(worse), to_numpy(select(x, worse)), z[worse])
        return broken

    def _take(self, points: Points, x: Any, z: Any) -> None:
        distance = linf(x, to_numpy(points.x))
        _check_reach(points, x, distance, self.eps)
        self.x[points.row], self.linf[points.row] = x, distance
        self.prediction[points.row], self.margin[points.row] = predictions(z), margins(z, points.label)
        self.broken[points.row] = self.prediction[points.row] != points.label


def predictions(z: Any) -> Any:
    """Return each row's class, the first of the largest logits: [B, K] to int64 [B], numpy."""
    return np.argmax(z, axis=1)


def margins(z: Any, label: Any) -> Any:
    """Return max_{j != y} z_j - z_y: [B], numpy."""
    rows = np.arange(len(label))
    others = z.copy()
    others[rows, label] = -np.inf
    return others.max(axis=1) - z[rows, label]


def select(array: Any, mask: Any) -> Any:
    """Return the rows where the numpy boolean array `mask` is set; the array itself if all are."""
    if mask.all():
        return array
    xp = array_namespace(array)
    return xp.take(array, xp.asarray(np.flatnonzero(mask), device=device(array)), axis=0)


def keep(record: Record, mask: Any) -> Record:
    """Return a dataclass of arrays with the rows where the numpy boolean array `mask` is set."""
    return type(record)(*(select(getattr(record, field.name), mask) for field in fields(record)))  # type: ignore[arg-type]


def column(values: Any, like: Any) -> Any:
    """Return one value per image [B] as [B, 1, 1, 1], so that it broadcasts against `like` [B, C, H, W]."""
    xp = array_namespace(like)
    return xp.reshape(xp.asarray(values, device=device(like)), (-1, *(1 for _ in like.shape[1:])))


def choose(mask: Any, yes: Any, no: Any) -> Any:
    """Return `yes` where the numpy boolean array `mask` is set, else `no`; `mask` is [B] or broadcasts to `yes`."""
    xp = array_namespace(yes)
    return xp.where(column(mask, yes) if mask.ndim == 1 else xp.asarray(mask, device=device(yes)), yes, no)


def to_numpy(array: Any) -> Any:
    """Return an array of any framework and device as numpy."""
    if is_cupy_array(array):
        return array.get()
    return np.asarray(array.cpu() if is_torch_array(array) else array)


def _steepest_under(gradient: Any, least: float) -> Any:
    """Return which images have a gradient below `least` in every pixel: bool [B], numpy."""
    xp = array_namespace(gradient)
    return to_numpy(xp.max(xp.abs(xp.reshape(gradient, (gradient.shape[0], -1))), axis=1)) < least


def _refuse_non_finite(array: Any, points: Points, what: str) -> None:
    xp = array_namespace(array)
    finite = xp.isfinite(array)
    if bool(xp.all(finite)):
        return
    image = points.index[~to_numpy(finite).reshape(len(points), -1).all(axis=1)][0]
    raise NonFinite(
        f"the {what} of image {image} is NaN or infinite",
        hint="such an artifact gets no verdict; look for an overflow in its graph",
    )


def _check_reach(points: Points, x: Any, distance: Any, eps: float) -> None:
    """Raise `RuntimeError` if an attack left the ball or the box, which is a defect of the attack."""
    flat = x.reshape(len(x), -1)
    outside = (distance > eps + TOLERANCE) | (flat.min(axis=1) < 0) | (flat.max(axis=1) > 1)
    if outside.any():
        raise RuntimeError(f"an attack left the ball of {radius(eps)} or the box at image {points.index[outside][0]}")

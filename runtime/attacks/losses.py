"""The losses that attacks raise: how each is asked for, and its value and derivative in the logits.

z are the logits [B, K], y the label, t the target, p1, p3 and p4 the classes with the largest, third and
fourth largest logit (ties go to the first class).
DLR and its targeted form: Croce & Hein 2020, equations 6 and 7.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from runtime.session import LossSpec

DENOMINATOR_FLOOR = 1e-12
CROSS_ENTROPY, MARGIN, DLR, TARGETED_DLR = range(4)
"""Columns of LossSpec.weights."""


def one_hot(classes: Any, count: int) -> Any:
    """Return float32 [B, count] with a one at each row's class; `classes` is an integer array [B]."""
    xp = array_namespace(classes)
    columns = xp.arange(count, dtype=classes.dtype, device=device(classes))
    return xp.astype(classes[:, None] == columns[None, :], xp.float32)


def cross_entropy(label: Any) -> LossSpec:
    """Ask for -log softmax(z)_y; `label` is one-hot float32 [B, K]."""
    return _named(CROSS_ENTROPY, label)


def margin(label: Any) -> LossSpec:
    """Ask for max_{j != y} z_j - z_y, the loss of Carlini & Wagner 2017 without its floor."""
    return _named(MARGIN, label)


def dlr(label: Any) -> LossSpec:
    """Ask for -(z_y - max_{j != y} z_j) / (z_p1 - z_p3 + 1e-12); at least three classes."""
    return _named(DLR, label)


def targeted_dlr(label: Any, target: Any) -> LossSpec:
    """Ask for -(z_y - z_t) / (z_p1 - (z_p3 + z_p4) / 2 + 1e-12); at least four classes."""
    return _named(TARGETED_DLR, label, target)


def linear(label: Any, cotangent: Any) -> LossSpec:
    """Ask for `<cotangent, z>`: no named loss."""
    return LossSpec(_weights(label), label, _zeros(label), cotangent)


def value_and_cotangent(z: Any, loss: LossSpec) -> tuple[Any, Any]:
    """Return the loss of each row [B] and its derivative in the logits [B, K].

    A loss that K classes do not define counts nothing: DLR under three, targeted DLR under four.
    """
    xp = array_namespace(z)
    losses = (_cross_entropy, _margin, _dlr, _targeted_dlr)[: max(2, min(z.shape[1], 4))]
    value, cotangent = xp.sum(loss.cotangent * z, axis=1), loss.cotangent
    for column, compute in enumerate(losses):
        one_value, one_cotangent = compute(z, loss)
        weight = loss.weights[:, column]
        value, cotangent = value + weight * one_value, cotangent + weight[:, None] * one_cotangent
    return value, cotangent


def _cross_entropy(z: Any, loss: LossSpec) -> tuple[Any, Any]:
    """Value and seed without cancellation: the y entry is -(sum of the other p), never p_y - 1.

    p_y - 1 is 0 in float32 where the loss is under 6e-8, and with it the whole gradient.
    """
    xp = array_namespace(z)
    others = _without(z, loss.label)
    top = xp.max(others, axis=1)
    scores = xp.exp(others - top[:, None])
    rest = xp.sum(scores, axis=1)
    gap = top - xp.sum(z * loss.label, axis=1) + xp.log(rest)
    softplus = xp.log1p(xp.exp(-xp.abs(gap)))
    wrong = xp.exp(xp.minimum(gap, xp.zeros_like(gap)) - softplus)
    return xp.maximum(gap, xp.zeros_like(gap)) + softplus, (scores / rest[:, None] - loss.label) * wrong[:, None]


def _margin(z: Any, loss: LossSpec) -> tuple[Any, Any]:
    direction = _first_maximum(_without(z, loss.label)) - loss.label
    return _dot(direction, z), direction


def _dlr(z: Any, loss: LossSpec) -> tuple[Any, Any]:
    first, _, third = _ranked(z, 3)
    return _ratio(z, _margin(z, loss)[1], first - third)


def _targeted_dlr(z: Any, loss: LossSpec) -> tuple[Any, Any]:
    first, _, third, fourth = _ranked(z, 4)
    return _ratio(z, loss.target - loss.label, first - (third + fourth) / 2)


def _ratio(z: Any, above: Any, below: Any) -> tuple[Any, Any]:
    """Return n/d and its derivative for n = <above, z>, d = <below, z> + 1e-12."""
    numerator, denominator = _dot(above, z)[:, None], _dot(below, z)[:, None] + DENOMINATOR_FLOOR
    return (numerator / denominator)[:, 0], above / denominator - below * (numerator / denominator) / denominator


def _ranked(z: Any, count: int) -> list[Any]:
    """Return one-hot [B, K] of the largest, second largest ... logit."""
    ranks = []
    for _ in range(count):
        ranks.append(_first_maximum(z))
        z = _without(z, ranks[-1])
    return ranks


def _first_maximum(z: Any) -> Any:
    return one_hot(array_namespace(z).argmax(z, axis=1), z.shape[1])


def _without(z: Any, chosen: Any) -> Any:
    """Return z with -inf where the one-hot `chosen` is set."""
    xp = array_namespace(z)
    return xp.where(chosen > 0, xp.full_like(z, -xp.inf), z)


def _dot(direction: Any, z: Any) -> Any:
    return array_namespace(z).sum(direction * z, axis=1)


def _named(column: int, label: Any, target: Any | None = None) -> LossSpec:
    weights = _weights(label)
    weights[:, column] = 1.0
    return LossSpec(weights, label, _zeros(label) if target is None else target, _zeros(label))


def _weights(label: Any) -> Any:
    return array_namespace(label).zeros((label.shape[0], 4), dtype=label.dtype, device=device(label))


def _zeros(label: Any) -> Any:
    return array_namespace(label).zeros_like(label)

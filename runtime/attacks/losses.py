"""The losses that attacks raise: the LossSpec of each, its value, and its derivative with respect to the logits.

z are the logits [B, K], y the label, t the target; p1, p3 and p4 are the classes with the largest, third largest and
fourth largest logit (the first class wins a tie).
DLR and targeted DLR: Croce & Hein 2020, equations 6 and 7.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from runtime.session import LossSpec

DENOMINATOR_FLOOR = 1e-12
CROSS_ENTROPY, MARGIN, DLR, TARGETED_DLR = range(4)
"""Columns of LossSpec.weights."""


def one_hot(classes: Any, count: int) -> Any:
    """Return float32 [B, count] with a 1 at each row's class; `classes` is an integer array [B]."""
    xp = array_namespace(classes)
    columns = xp.arange(count, dtype=classes.dtype, device=device(classes))
    return xp.astype(classes[:, None] == columns[None, :], xp.float32)


def cross_entropy(label: Any) -> LossSpec:
    """Return the spec of -log softmax(z)_y; `label` is one-hot float32 [B, K]."""
    return _named(CROSS_ENTROPY, label)


def margin(label: Any) -> LossSpec:
    """Return the spec of max_{j != y} z_j - z_y, the loss of Carlini & Wagner 2017 without its floor."""
    return _named(MARGIN, label)


def dlr(label: Any) -> LossSpec:
    """Return the spec of -(z_y - max_{j != y} z_j) / (z_p1 - z_p3 + 1e-12), for at least three classes."""
    return _named(DLR, label)


def targeted_dlr(label: Any, target: Any) -> LossSpec:
    """Return the spec of -(z_y - z_t) / (z_p1 - (z_p3 + z_p4) / 2 + 1e-12), for at least four classes."""
    return _named(TARGETED_DLR, label, target)


def linear(label: Any, cotangent: Any) -> LossSpec:
    """Return the spec of `<cotangent, z>`, a loss that is linear in the logits."""
    return LossSpec(_weights(label), label, _zeros(label), cotangent)


def value_and_cotangent(z: Any, loss: LossSpec) -> tuple[Any, Any]:
    """Return the loss of each row [B] and its derivative with respect to the logits [B, K].

    A loss that is not defined for K classes counts as 0: DLR under three, targeted DLR under four.
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
    """Return value and derivative without cancellation: entry y is minus the sum of the other p, and not p_y - 1.

    In float32, p_y - 1 is 0 if the loss is under 6e-8, and then the whole gradient is 0.
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
    """Return the one-hot classes [B, K] of the largest logit, the second largest and so on."""
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

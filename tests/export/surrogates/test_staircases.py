"""A staircase's gradient is the slope of the ramp that it stands on: torch's, of that ramp, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.gradient import gradient_graph
from export.graph.passes import prepare
from runtime.errors import BadModel
from tests.export.classifiers import attack_feeds, classifier, evaluate
from tests.export.rules.cases import Case, check_same_bits_everywhere, gradient_of, model_of


def straight(hard: Any, soft: Any) -> Any:
    """Return the staircase with the slope of what it stands on."""
    return soft + (hard - soft).detach()


def width(u: Any) -> Any:
    return 2 * u.abs().mean(tuple(range(1, u.ndim)), keepdim=True).detach()


def above(u: Any) -> Any:
    w = width(u)
    return straight((u > 0).to(u.dtype), (u / (2 * w)).clamp(-0.5, 0.5) + 0.5)


def sign(u: Any) -> Any:
    return straight(u.sign(), 2 * above(u))


def equal(u: Any) -> Any:
    return straight((u == 0).to(u.dtype), (1 - u.abs() / width(u)).clamp(min=0))


def highest(scores: Any, axis: int) -> Any:
    chosen = F.one_hot(scores.argmax(axis), scores.shape[axis]).movedim(-1, axis).to(scores.dtype)
    return straight(chosen, scores - scores.mean(axis, keepdim=True))


def rounded(x: Any) -> Any:
    return straight(x.round(), x)


CASES = {
    "Round": Case("y = Round (x)", rounded),
    "Floor": Case("y = Floor (x)", lambda x: straight(x.floor(), x)),
    "Ceil": Case("y = Ceil (x)", lambda x: straight(x.ceil(), x)),
    "Clip, Mul, Round and Div, as PACT and LSQ are exported": Case(
        "c = Clip (x, low, high)\nm = Mul (c, steps)\nr = Round (m)\ny = Div (r, steps)",
        lambda x, low, high, steps: rounded(x.clamp(low, high) * steps) / steps,
        {"low": 0.0, "high": 0.8, "steps": 3.0},
    ),
    "a rounding written as a step away from what is rounded": Case(
        "r = Round (x)\nd = Sub (r, x)\ny = Add (x, d)", rounded
    ),
    "Sign": Case("y = Sign (x)", sign),
    "Sign of large values": Case("m = Mul (x, c)\ny = Sign (m)", lambda x, c: sign(x * c), {"c": 1e4}),
    "Sign of small values": Case("m = Mul (x, c)\ny = Sign (m)", lambda x, c: sign(x * c), {"c": 0.05}),
    "Sign scaled by the mean, as in XNOR-Net": Case(
        "s = Sign (x)\na = Abs (x)\nm = ReduceMean (a, axes)\ny = Mul (s, m)",
        lambda x, axes: sign(x) * x.abs().mean(1, keepdim=True),
        {"axes": np.asarray([1])},
    ),
    "Cast to an integer and back": Case("i = Cast <to=7> (x)\ny = Cast <to=1> (i)", lambda x: straight(x.trunc(), x)),
    "Cast to a truth value and back": Case(
        "c = Clip (x, low)\ni = Cast <to=9> (c)\ny = Cast <to=1> (i)",
        lambda x, low: 1 - equal(x.clamp(min=low)),
        {"low": 0.0},
    ),
    "Where of constants": Case(
        "c = GreaterOrEqual (x, t)\ny = Where (c, a, b)",
        lambda x, t, a, b: b + (a - b) * above(x - t),
        {"t": 0.25, "a": 1.5, "b": np.asarray([-1.0, 2, 0, 3, 4, 5])},
    ),
    "Greater and Cast": Case("c = Greater (x, t)\ny = Cast <to=1> (c)", lambda x, t: above(x - t), {"t": 0.5}),
    "Less and Cast, not": Case(
        "c = Less (x, t)\nn = Not (c)\ny = Cast <to=1> (n)", lambda x, t: 1 - above(t - x), {"t": 0.5}
    ),
    "LessOrEqual of two branches": Case(
        "m = GlobalAveragePool (x)\nc = LessOrEqual (m, x)\ny = Cast <to=1> (c)",
        lambda x: above(x - x.mean((2, 3), keepdim=True)),
    ),
    "a window of And, Or and Xor": Case(
        "a = Greater (x, low)\nb = Less (x, high)\nc = And (a, b)\nd = Greater (x, far)\ne = Or (c, d)\n"
        "f = Xor (e, a)\ny = Cast <to=1> (f)",
        lambda x, low, high, far: connected(above(x - low), above(high - x), above(x - far)),
        {"low": -0.5, "high": 0.5, "far": 1.0},
    ),
    "Equal of a rounded value": Case(
        "r = Round (x)\nc = Equal (r, one)\ny = Cast <to=1> (c)", lambda x, one: equal(rounded(x) - one), {"one": 1.0}
    ),
    "ArgMax and OneHot": Case(
        "i = ArgMax <axis=1, keepdims=0> (x)\ny = OneHot <axis=1> (i, depth, values)",
        lambda x, depth, values: highest(x, 1),
        {"depth": np.asarray(4), "values": np.asarray([0.0, 1])},
    ),
    "ArgMax that keeps its axis, and OneHot at the end": Case(
        "i = ArgMax <axis=2> (x)\ny = OneHot (i, depth, values)",
        lambda x, depth, values: (3 * highest(x, 2) - 1).movedim(2, -1).unsqueeze(2),
        {"depth": np.asarray(7), "values": np.asarray([-1.0, 2])},
    ),
    "ArgMin and OneHot": Case(
        "i = ArgMin <axis=-1, keepdims=0> (x)\ny = OneHot (i, depth, values)",
        lambda x, depth, values: highest(-x, 3),
        {"depth": np.asarray(6), "values": np.asarray([0.0, 1])},
    ),
    "Hardmax": Case("y = Hardmax <axis=1> (x)", lambda x: highest(x, 1)),
    "x where it is positive, written as a product": Case(
        "c = Greater (x, zero)\nm = Cast <to=1> (c)\ny = Mul (x, m)", lambda x, zero: x.relu(), {"zero": 0.0}
    ),
    "Sign times a function of the size": Case(
        "s = Sign (x)\na = Abs (x)\nd = Sub (a, t)\nr = Relu (d)\ny = Mul (s, r)",
        lambda x, t: F.softshrink(x, float(t)),
        {"t": 0.5},
    ),
}
IN_FLOAT_ALONE = {"Cast to an integer and back", "Cast to a truth value and back"} | {
    name for name, case in CASES.items() if "Cast <to=1>" in case.nodes
}
"""Those that cast to float32 by its number."""


def connected(a: Any, b: Any, d: Any) -> Any:
    c = a * b
    e = c + d - c * d
    return e + a - 2 * e * a


@pytest.mark.parametrize("name", sorted(set(CASES) - IN_FLOAT_ALONE))
def test_gradient_of_every_staircase_equals_its_ramps_in_float64(name: str) -> None:
    ours, expected = gradient_of(CASES[name], np.float64)
    assert expected.any()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_every_staircase_on_onnx_runtime_equals_its_ramps(name: str) -> None:
    ours, expected = gradient_of(CASES[name], np.float32)
    assert expected.any()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_every_staircase_has_the_same_bits_wherever_the_row_is(name: str) -> None:
    check_same_bits_everywhere(CASES[name])


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.3, -2e30])
def test_no_image_is_without_a_slope_however_far_its_values_lie_from_the_step(value: float) -> None:
    model = model_of(Case("y = Sign (x)", torch.sign, {}, (1, 2, 2)), np.float32)
    x = np.full((1, 1, 2, 2), value, np.float32)
    found = evaluate(gradient_graph(model), attack_feeds(x, 5, cotangent=np.ones((1, 5))))["gradient"]
    assert np.isfinite(found).all()
    assert found.all()


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("a = ArgMax <axis=1> (input)\ny = Cast <to=1> (a)", ("ArgMax", "used as numbers")),
        ("a = ArgMax <axis=1> (input)\nc = Equal (a, one)\ny = Cast <to=1> (c)", ("Equal", "compares indices")),
        ("i = Cast <to=7> (input)\ny = OneHot (i, depth, values)", ("OneHot", "neither ArgMax nor ArgMin")),
        ("a = ArgMax <axis=1> (input)\ny = OneHot (a, depth, values)", ("OneHot", "number of scores")),
        ("i = Cast <to=7> (input)\ny = Gather (table, i)", ("Gather", "computed at run time")),
        ("i = Cast <to=7> (input)\nd = Div (i, one)\ny = Cast <to=1> (d)", ("Div", "integers")),
        ('i = Cast <to=12> (input)\nb = BitShift <direction="LEFT"> (i, i)\ny = Cast <to=1> (b)', ("BitShift",)),
    ],
)
def test_a_step_without_a_rule_is_refused_by_its_name_and_never_dropped(nodes: str, words: tuple[str, ...]) -> None:
    model = classifier(
        [
            *nodes.split("\n"),
            "f = Flatten (y)",
            "s = ReduceSum (f, last)",
            "t = Flatten (input)",
            "m = MatMul (t, head)",
            "logits = Add (m, s)",
        ],
        image=(1, 3, 3),
        classes=2,
        constants={
            "last": np.asarray([1]),
            "one": np.asarray([1]),
            "depth": np.asarray(5),
            "values": np.asarray([0.0, 1]),
            "table": np.arange(4.0),
            "head": np.ones((9, 2)),
        },
        dtype=np.float32,
    )
    with pytest.raises(BadModel) as caught:
        gradient_graph(prepare(model))
    assert all(word in caught.value.message for word in words), caught.value.message

"""Models that answer two classes by one number, or by one probability and its rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.export.classifiers import torch_gradient
from tests.export.plain import BODY, WEIGHTS, X, check_as_torch, network, plain
from tests.export.strangers import changes_of, command, gradient_of, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path

AGAINST = np.asarray([[0], [1], [-0.5], [0.5]], np.float32)
ONE = [*BODY, "s = Add (m, b2)", "z = MatMul (s, against)"]
CONSTANTS = {**WEIGHTS, "against": AGAINST, "one": np.asarray([1]), "whole": np.float32(1)}


def margin(x: Any, scale: float = 1.0) -> Any:
    """Return the one number of ONE, in torch."""
    return scale * network(x) @ torch.from_numpy(AGAINST).to(x.dtype)


def logits_of(x: Any, scale: float = 1.0) -> Any:
    z = margin(x, scale)
    return torch.cat([torch.zeros_like(z), z], dim=1)


BINARY = (margin(torch.from_numpy(X))[:, 0] > 0).long().numpy()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Images of two classes, as ONE tells them apart."""
    np.savez(tmp_path / "two.npz", x=X, y=BINARY)
    return tmp_path / "two.npz"


ONE_NUMBER = {
    "a logit": (["scores = Identity (z)"], [1, 1], "logit of the second class"),
    "a logit in a row": (["scores = Squeeze (z, one)"], [1], "logit of the second class"),
    "a probability": (["scores = Sigmoid (z)"], [1, 1], "probability of the second class"),
    "a probability in a row": (["p = Sigmoid (z)", "scores = Squeeze (p, one)"], [1], "second class"),
    "both probabilities": (
        ["p = Sigmoid (z)", "q = Sub (whole, p)", "scores = Concat <axis=1> (q, p)"], [1, 2], "[1 - p, p]"
    ),
    "both probabilities, of a row": (
        ["row = Squeeze (z, one)", "p = Sigmoid (row)", "q = Sub (whole, p)", "a = Unsqueeze (q, one)",
         "b = Unsqueeze (p, one)", "scores = Concat <axis=-1> (a, b)"], [1, 2], "[1 - p, p]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ONE_NUMBER)
def test_one_number_tells_two_classes_apart_by_its_logit(form: str, two: Path, save: Any, tmp_path: Path) -> None:
    end, out, words = ONE_NUMBER[form]
    bundle = packed(save(plain([*ONE, *end], out=out, constants=CONSTANTS)), two, tmp_path / "bundle")
    assert words in changes_of(bundle)
    assert bundle.manifest.classes == ("0", "1")
    check_as_torch(session_of(bundle), function=logits_of)


def test_first_of_both_probabilities_may_be_the_one_that_is_computed(two: Path, save: Any, tmp_path: Path) -> None:
    end = ["p = Sigmoid (z)", "q = Sub (whole, p)", "scores = Concat <axis=1> (p, q)"]
    np.savez(two, x=X, y=1 - BINARY)
    bundle = packed(save(plain([*ONE, *end], out=[1, 2], constants=CONSTANTS)), two, tmp_path / "bundle")
    check_as_torch(session_of(bundle), function=lambda x: logits_of(x).flip(1))


@pytest.mark.parametrize("end", ["a probability", "both probabilities"])
def test_gradient_of_a_saturated_probability_is_that_of_its_logit(
    end: str, two: Path, save: Any, tmp_path: Path
) -> None:
    nodes, out, _ = ONE_NUMBER[end]
    steep = [*ONE[:-1], "y = MatMul (s, against)", "z = Mul (y, steep)", *nodes]
    model = plain(steep, out=out, constants={**CONSTANTS, "steep": np.float32(100)})
    session = session_of(packed(save(model), two, tmp_path / "bundle"))
    sure = torch.sigmoid(margin(torch.from_numpy(X), 100))[:, 0]
    saturated = ((sure == 0) | (sure == 1)).numpy()
    assert saturated.any()  # a gradient through the sigmoid would be zero there
    cotangent = np.tile(np.float32([0, 0.01]), (len(X), 1))
    expected = torch_gradient(margin, X, cotangent[:, 1:] * 100)
    np.testing.assert_allclose(gradient_of(session, X, cotangent), expected, rtol=0, atol=1e-5)


ROUNDED = {
    "p": [
        "q = QuantizeLinear (p, step, none)", "d = DequantizeLinear (q, step, none)", "rest = Sub (whole, d)",
        "scores = Concat <axis=1> (rest, d)",
    ],
    "p, its rest and both": [
        "q = QuantizeLinear (p, step, none)", "d = DequantizeLinear (q, step, none)",
        "w = DequantizeLinear (all, step, none)", "rest = Sub (w, d)", "rq = QuantizeLinear (rest, step, none)",
        "rd = DequantizeLinear (rq, step, none)", "pair = Concat <axis=1> (rd, d)",
        "cq = QuantizeLinear (pair, step, none)", "scores = DequantizeLinear (cq, step, none)",
    ],
    "the pair alone": [
        "rest = Sub (whole, p)", "pair = Concat <axis=1> (p, rest)", "q = QuantizeLinear (pair, step, none)",
        "scores = DequantizeLinear (q, step, none)",
    ],
    "p, whose rest is -p + 1": [
        "q = QuantizeLinear (p, step, none)", "d = DequantizeLinear (q, step, none)", "m1 = Neg (d)",
        "rest = Add (m1, whole)", "scores = Concat <axis=1> (rest, d)",
    ],
}  # fmt: skip


@pytest.mark.parametrize("rounded", ROUNDED)
def test_both_probabilities_of_a_quantised_sigmoid_are_refused(
    rounded: str, two: Path, save: Any, tmp_path: Path
) -> None:
    steps = {"step": np.float32(1 / 255), "none": np.uint8(0), "all": np.uint8(255)}
    nodes = [*ONE, "p = Sigmoid (z)", *ROUNDED[rounded]]
    model = plain(nodes, out=[1, 2], constants={**CONSTANTS, **steps})
    result = command("pack", save(model), "--data", two, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert "ends in a quantised Sigmoid" in result.stderr


def test_both_probabilities_of_a_quantised_logit_are_those_of_the_logit(two: Path, save: Any, tmp_path: Path) -> None:
    steps = {"step": np.float32(1 / 64), "none": np.int8(0)}
    nodes = [*ONE, "q = QuantizeLinear (z, step, none)", "d = DequantizeLinear (q, step, none)", "p = Sigmoid (d)",
             "rest = Sub (whole, p)", "scores = Concat <axis=1> (rest, p)"]  # fmt: skip
    bundle = packed(save(plain(nodes, out=[1, 2], constants={**CONSTANTS, **steps})), two, tmp_path / "bundle")
    assert "[1 - p, p]" in changes_of(bundle)


@pytest.mark.parametrize(
    "end",
    [
        ["scores = HardSigmoid (z)"],
        ["p = HardSigmoid (z)", "h = Mul (p, hundred)", "scores = Relu (h)"],
        ["a = Abs (z)", "scores = Neg (a)"],
    ],
    ids=["a probability", "a score from 0 to 100", "never positive"],
)
def test_one_number_whose_sign_tells_no_classes_apart_is_not_taken_for_a_logit(
    end: list[str], two: Path, save: Any, tmp_path: Path
) -> None:
    model = plain([*ONE, *end], out=[1, 1], constants={**CONSTANTS, "hundred": np.float32(100)})
    result = command("pack", save(model), "--data", two, "--out", tmp_path / "bundle")
    assert (result.exit_code, "the same sign for every image" in result.stderr) == (3, True), result.output
    assert "Sigmoid" in result.stderr


def test_probabilities_whose_sigmoid_is_not_found_are_told(two: Path, save: Any, tmp_path: Path) -> None:
    end = ["p = HardSigmoid (z)", "q = Sub (whole, p)", "scores = Concat <axis=1> (q, p)"]
    bundle = packed(save(plain([*ONE, *end], out=[1, 2], constants=CONSTANTS)), two, tmp_path / "bundle")
    assert "probabilities that could not be turned back" in changes_of(bundle)


def test_labels_of_more_than_two_classes_are_refused_for_one_number(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*ONE, "scores = Sigmoid (z)"], out=[1, 1], constants=CONSTANTS)
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "there are 2 classes" in result.stderr) == (3, True)

"""Models that take images, or answer, in other forms than [N, C, H, W] and a logit for each class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from runtime.bundle.graph_facts import graph_facts
from tests.export.classifiers import torch_gradient
from tests.export.plain import B2, BODY, PLAIN, WEIGHTS, X, check_as_torch, network, plain
from tests.export.strangers import command, gradient_of, packed, session_of, stranger

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


def changes_of(bundle: Any) -> str:
    return " / ".join(bundle.manifest.packed.changes)


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
    assert (result.exit_code, "the same sign on every image" in result.stderr) == (3, True), result.output
    assert "Sigmoid" in result.stderr


def test_probabilities_whose_sigmoid_is_not_found_are_told(two: Path, save: Any, tmp_path: Path) -> None:
    end = ["p = HardSigmoid (z)", "q = Sub (whole, p)", "scores = Concat <axis=1> (q, p)"]
    bundle = packed(save(plain([*ONE, *end], out=[1, 2], constants=CONSTANTS)), two, tmp_path / "bundle")
    assert "probabilities that could not be turned back" in changes_of(bundle)


def test_labels_of_more_than_two_classes_are_refused_for_one_number(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*ONE, "scores = Sigmoid (z)"], out=[1, 1], constants=CONSTANTS)
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "of 2 classes" in result.stderr) == (3, True)


BYTES = np.rint(255 * X).astype(np.uint8)
STORED = (BYTES / np.float32(255)).astype(np.float32)
FROM_BYTES = ["level = Cast <to=1> (image)", "i = Div (level, white)", *[line.replace("image", "i") for line in PLAIN]]


def of_bytes(dims: list[Any], *first: str) -> Any:
    """PLAIN behind a conversion from bytes; `first` makes of `image` what is channels first."""
    nodes = [*first, *FROM_BYTES]
    if first:
        nodes[len(first)] = nodes[len(first)].replace("image", "moved")
    model = plain(nodes, dims=dims, constants={**WEIGHTS, "flat": np.asarray([-1, 96]), "white": np.float32(255)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


FORMS_OF_BYTES = {
    "channels first": of_bytes(["n", 3, 8, 8]),
    "channels last": of_bytes(["n", 8, 8, 3], "moved = Transpose <perm=[0,3,1,2]> (image)"),
    "a batch of one": of_bytes([1, 3, 8, 8]),
}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """PLAIN's images as bytes."""
    np.savez(tmp_path / "bytes.npz", x=BYTES, y=network(torch.from_numpy(STORED)).argmax(1).numpy())
    return tmp_path / "bytes.npz"


@pytest.mark.parametrize("form", FORMS_OF_BYTES)
def test_model_of_bytes_sees_each_pixel_rounded(form: str, stored: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(FORMS_OF_BYTES[form]), stored, tmp_path / "bundle")
    session = session_of(bundle)
    check_as_torch(session, STORED)
    between = (STORED + np.random.default_rng(2).uniform(-0.49, 0.49, X.shape) / 255).clip(0, 1).astype(np.float32)
    assert np.array_equal(session.logits(between), session.logits(STORED))
    assert session.card().facts.takes_bytes
    assert "rounded to the nearest" in changes_of(bundle)


def test_points_found_of_a_model_of_bytes_are_bytes_within_eps(stored: Path, save: Any, tmp_path: Path) -> None:
    model, run = save(FORMS_OF_BYTES["channels last"]), tmp_path / "run"
    options = ("--eps", "6/255", "--attacks", "pgd", "--save-adversarial", "--out", run)
    result = command("verify", model, "--data", stored, *options)
    assert result.exit_code == 0, result.output
    with np.load(run / "evidence.npz") as evidence:
        levels = 255 * evidence["adversarial"]
        assert (evidence["broken_by"] >= 0).any()
        assert np.abs(levels - np.rint(levels)).max() < 1e-4
        assert np.abs(np.rint(levels) - BYTES).max() <= 6
        session = ReferenceEvaluator(onnx.load(model))
        (scores,) = session.run(None, {"image": np.rint(levels).astype(np.uint8).transpose(0, 2, 3, 1)})
        assert np.array_equal(scores.argmax(1), evidence["adversarial_prediction"])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--eps", "2.5/255"], 2, "--eps 2/255"),
        (["--eps", "0.4/255"], 2, "--eps 1/255"),
        (["--mean", "0.5"], 3, "leave --mean and --std out"),
        (["--std", "1/255"], 3, "leave --mean and --std out"),
    ],
)
@pytest.mark.parametrize("name", ["pack", "verify"])
def test_what_bytes_cannot_say_is_refused(
    name: str, options: list[str], code: int, words: str, stored: Path, save: Any, tmp_path: Path
) -> None:
    model = save(FORMS_OF_BYTES["channels first"])
    result = command(name, model, "--data", stored, "--out", tmp_path / "out", *options)
    assert (result.exit_code, words in result.stderr) == (code, True), result.output


def test_bundle_of_a_model_of_bytes_is_judged_by_whole_levels(
    stored: Path, data: Path, save: Any, tmp_path: Path
) -> None:
    packed(save(FORMS_OF_BYTES["channels first"]), stored, tmp_path / "bundle")
    for option, words in ((("--eps", "8.5/255"), "--eps 8/255"), (("--data", data), "the model takes bytes")):
        result = command("verify", tmp_path / "bundle", *option, "--out", tmp_path / "run")
        assert (result.exit_code in (2, 3), words in result.stderr) == (True, True), result.output


def test_images_that_are_no_bytes_are_refused_for_a_model_of_bytes(data: Path, save: Any, tmp_path: Path) -> None:
    options = ("--eps", "2/255", "--out", tmp_path / "out")
    result = command("pack", save(FORMS_OF_BYTES["channels first"]), "--data", data, *options)
    assert (result.exit_code, "the model takes bytes" in result.stderr) == (3, True), result.output


def test_graph_that_reads_more_than_bytes_of_its_image_does_not_take_bytes() -> None:
    nodes = ["l = Mul (image, white)", "i = Round (l)", "b = Cast <to=2> (i)", "d = Cast <to=1> (b)"]
    for rest, takes in (("s = Add (d, d)", True), ("s = Add (d, image)", False)):
        model = plain([*nodes, rest, *[line.replace("image", "s") for line in PLAIN]],
                      constants={**WEIGHTS, "white": np.float32(255)})  # fmt: skip
        assert graph_facts(model.SerializeToString()).takes_bytes == takes


GREY = np.random.default_rng(3).random((12, 1, 8, 8), dtype=np.float32)
ROW = np.random.default_rng(4).standard_normal((64, 4)).astype(np.float32)
COLOURS = np.random.default_rng(5).standard_normal((192, 4)).astype(np.float32)


def rows(nodes: list[str], dims: list[Any], weights: Any = ROW, **constants: Any) -> Any:
    return stranger(nodes, dims=dims, out=["n", 4], constants={"w": weights, "b": B2, **constants})


def of_a_row(x: Any) -> Any:
    return x.flatten(1) @ torch.from_numpy(ROW).to(x.dtype) + torch.from_numpy(B2).to(x.dtype)


FLAT = {"flat": np.asarray([-1, 64])}
GREY_FORMS = {
    "[N, H, W]": rows(["f = Reshape (image, flat)", "scores = Gemm (f, w, b)"], ["n", 8, 8], **FLAT),
    "[1, H, W]": rows(["f = Reshape (image, flat)", "scores = Gemm (f, w, b)"], [1, 8, 8], **FLAT),
    "[N, D]": rows(["scores = Gemm (image, w, b)"], ["n", 64]),
    "[N, D] of unknown sizes": rows(["scores = Gemm (image, w, b)"], ["n", "d"]),
    "[C, H, W]": rows(
        ["u = Unsqueeze (image, zero)", "f = Flatten (u)", "scores = Gemm (f, w, b)"], [1, 8, 8], zero=np.asarray([0])
    ),
    "[H, W]": rows(
        ["u = Unsqueeze (image, ends)", "f = Flatten (u)", "scores = Gemm (f, w, b)"], [8, 8], ends=np.asarray([0, 1])
    ),
}


@pytest.mark.parametrize("form", GREY_FORMS)
def test_grey_images_are_brought_to_the_form_that_the_model_takes(form: str, save: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", x=GREY, y=of_a_row(torch.from_numpy(GREY)).argmax(1).numpy())
    bundle = packed(save(GREY_FORMS[form]), tmp_path / "grey.npz", tmp_path / "bundle")
    check_as_torch(session_of(bundle), GREY, of_a_row)


@pytest.mark.parametrize("dims", [[3, 8, 8], [8, 8, 3]])
@pytest.mark.parametrize("ends", [["scores = Identity (s)"], ["scores = Squeeze (s, zero)"]])
def test_model_of_one_image_is_given_a_batch(
    dims: list[int], ends: list[str], data: Path, save: Any, tmp_path: Path
) -> None:
    moved = ["a = Unsqueeze (image, zero)"]
    moved += ["t = Transpose <perm=[0,3,1,2]> (a)" if dims[-1] == 3 else "t = Identity (a)"]
    nodes = [*moved, *[line.replace("image", "t") for line in BODY], "s = Add (m, b2)", *ends]
    out = [4] if "Squeeze" in ends[0] else [1, 4]
    model = plain(nodes, dims=dims, out=out, constants={**WEIGHTS, "zero": np.asarray([0])})
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


def test_model_of_one_image_that_adds_no_batch_is_refused(data: Path, save: Any, tmp_path: Path) -> None:
    model = stranger(
        ["f = Reshape (image, flat)", "scores = MatMul (f, w)"],
        dims=[3, 8, 8], out=[64, 4], constants={"flat": np.asarray([64, 3]), "w": COLOURS[:3]},
    )  # fmt: skip
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "no axis for the batch" in result.stderr) == (3, True), result.output


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_order_of_colours_in_a_row_is_not_guessed(layout: str, save: Any, tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        x = x if layout == "nchw" else x.permute(0, 2, 3, 1)
        return x.flatten(1) @ torch.from_numpy(COLOURS).to(x.dtype) + torch.from_numpy(B2).to(x.dtype)

    np.savez(tmp_path / "set.npz", x=X, y=function(torch.from_numpy(X)).argmax(1).numpy())
    model = save(rows(["scores = Gemm (image, w, b)"], ["n", 192], COLOURS))
    result = command("pack", model, "--data", tmp_path / "set.npz", "--out", tmp_path / "bundle")
    assert (result.exit_code, "--layout nchw or nhwc" in result.stderr) == (3, True), result.output
    bundle = packed(model, tmp_path / "set.npz", tmp_path / "bundle", "--layout", layout)
    check_as_torch(session_of(bundle), X, function)


def test_colours_in_the_other_order_are_turned_behind_the_normalisation(data: Path, save: Any, tmp_path: Path) -> None:
    options = ("--bgr", "--mean", ".4,.5,.6", "--std", ".5,.6,.7")
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in ((0.4, 0.5, 0.6), (0.5, 0.6, 0.7)))
    bundle = packed(save(plain()), data, tmp_path / "bundle", *options)
    check_as_torch(session_of(bundle), function=lambda x: network(((x - mean) / std).flip(1)))
    assert "blue put first" in changes_of(bundle)


def test_a_command_repeats_how_the_model_was_read(data: Path, save: Any, tmp_path: Path) -> None:
    options = ("--bgr", "--output", "scores", "--attacks", "fgsm", "--eps", "1/255", "--out", tmp_path / "run")
    assert command("verify", save(plain()), "--data", data, *options).exit_code == 0
    asked = json.loads((tmp_path / "run" / "report.json").read_text())["request"]["command"]
    assert "--bgr" in asked
    assert "--output scores" in asked


def test_grey_images_have_no_order_of_colours(save: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", x=GREY, y=np.arange(12) % 4)
    result = command("pack", save(GREY_FORMS["[N, D]"]), "--data", tmp_path / "grey.npz", "--bgr")
    assert (result.exit_code, "--bgr is of images in colour" in result.stderr) == (3, True), result.output


def with_output(name: str, nodes: list[str], kind: int, out: list[int], **constants: Any) -> Any:
    model = plain([*PLAIN, *nodes], constants={**WEIGHTS, **constants})
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, out))
    return model


QUALITY = with_output("quality", ["quality = MatMul (scores, against)"], TensorProto.FLOAT, [1, 1], against=AGAINST)
TOP = ["top, places = TopK <axis=1> (scores, three)"]


def test_of_several_outputs_that_fit_none_is_guessed(data: Path, save: Any, tmp_path: Path) -> None:
    model = save(QUALITY)
    result = command("pack", model, "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "scores: [1, 4]; quality: [1, 1]" in result.stderr) == (3, True), result.output
    assert "--output scores takes that one" in result.stderr
    bundle = packed(model, data, tmp_path / "bundle", "--output", "scores")
    check_as_torch(session_of(bundle))
    assert "only scores kept" in changes_of(bundle)


def test_output_that_is_not_there_is_told_with_those_that_are(data: Path, save: Any, tmp_path: Path) -> None:
    result = command("pack", save(QUALITY), "--data", data, "--out", tmp_path / "bundle", "--output", "score")
    assert (result.exit_code, "no output 'score'" in result.stderr) == (3, True), result.output
    assert "scores: [1, 4]; quality: [1, 1]" in result.stderr


@pytest.mark.parametrize("end", ["sorted = Softmax <axis=1> (top)", "sorted = Identity (top)"])
def test_sorted_numbers_are_no_classes(end: str, data: Path, save: Any, tmp_path: Path) -> None:
    nodes = [*BODY, "z = Add (m, b2)", "top, places = TopK <axis=1> (z, four)", end.replace("sorted", "scores")]
    model = save(plain(nodes, constants={**WEIGHTS, "four": np.asarray([4])}))
    for option in ([], ["--output", "scores"]):
        result = command("pack", model, "--data", data, "--out", tmp_path / "bundle", *option)
        assert (result.exit_code, "'scores' is sorted, as TopK does it" in result.stderr) == (3, True), result.output
        assert "no classes" in result.stderr


def test_scores_beside_their_sorted_ones_are_taken(data: Path, save: Any, tmp_path: Path) -> None:
    model = with_output("top", TOP, TensorProto.FLOAT, [1, 3], three=np.asarray([3]))
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


DYNAMIC = [
    "f = Flatten (image)",
    "q, scale, zero = DynamicQuantizeLinear (f)",
    "i = MatMulInteger (q, weights, zero)",
    "r = Cast <to=1> (i)",
    "scores = Mul (r, scale)",
]


def test_model_whose_ranges_are_of_the_whole_batch_is_run_image_by_image(save: Any, tmp_path: Path) -> None:
    weights = np.random.default_rng(6).integers(-127, 127, (192, 4)).astype(np.int8)
    path = save(plain(DYNAMIC, dims=["n", 3, 8, 8], out=["n", 4], constants={"weights": weights}))
    x = X * np.linspace(0.1, 1, len(X), dtype=np.float32).reshape(-1, 1, 1, 1)  # of ranges that are far apart
    reference = ReferenceEvaluator(onnx.load(path))
    alone = np.concatenate([reference.run(None, {"image": image[None]})[0] for image in x])
    assert np.abs(reference.run(None, {"image": x})[0] - alone).max() > 1
    np.savez(tmp_path / "set.npz", x=x, y=alone.argmax(1))
    bundle = packed(path, tmp_path / "set.npz", tmp_path / "bundle", "--gradient", "none")
    assert "every image is run by itself" in changes_of(bundle)
    assert "rounds its logits otherwise" not in changes_of(bundle)
    np.testing.assert_allclose(session_of(bundle).logits(x), alone, rtol=1e-5)

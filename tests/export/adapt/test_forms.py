"""Models that take images in other forms than [N, C, H, W], or have several outputs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from tests.export.plain import B2, BODY, PLAIN, WEIGHTS, X, check_as_torch, network, plain
from tests.export.strangers import changes_of, command, packed, session_of, stranger

if TYPE_CHECKING:
    from pathlib import Path

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
    assert "blue first" in changes_of(bundle)


def test_a_command_repeats_how_the_model_was_read(data: Path, save: Any, tmp_path: Path) -> None:
    options = ("--bgr", "--output", "scores", "--attacks", "fgsm", "--eps", "1/255", "--out", tmp_path / "run")
    assert command("verify", save(plain()), "--data", data, *options).exit_code == 0
    asked = json.loads((tmp_path / "run" / "report.json").read_text())["request"]["command"]
    assert "--bgr" in asked
    assert "--output scores" in asked


def test_grey_images_have_no_order_of_colours(save: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", x=GREY, y=np.arange(12) % 4)
    result = command("pack", save(GREY_FORMS["[N, D]"]), "--data", tmp_path / "grey.npz", "--bgr")
    assert (result.exit_code, "--bgr needs colour images" in result.stderr) == (3, True), result.output


def with_output(name: str, nodes: list[str], kind: int, out: list[int], **constants: Any) -> Any:
    model = plain([*PLAIN, *nodes], constants={**WEIGHTS, **constants})
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, out))
    return model


QUALITY = with_output(
    "quality", ["quality = MatMul (scores, against)"], TensorProto.FLOAT, [1, 1], against=np.ones((4, 1))
)
TOP = ["top, places = TopK <axis=1> (scores, three)"]


def test_of_several_outputs_that_fit_none_is_guessed(data: Path, save: Any, tmp_path: Path) -> None:
    model = save(QUALITY)
    result = command("pack", model, "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "scores: [1, 4]; quality: [1, 1]" in result.stderr) == (3, True), result.output
    assert "such as --output scores" in result.stderr
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
        assert (result.exit_code, "'scores' is sorted, as by TopK" in result.stderr) == (3, True), result.output
        assert "not classes" in result.stderr


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
    weights = np.random.default_rng(6).integers(-64, 65, (192, 4)).astype(np.int8)  # without VNNI, larger ones overflow
    path = save(plain(DYNAMIC, dims=["n", 3, 8, 8], out=["n", 4], constants={"weights": weights}))
    x = X * np.linspace(0.1, 1, len(X), dtype=np.float32).reshape(-1, 1, 1, 1)  # of ranges that are far apart
    reference = ReferenceEvaluator(onnx.load(path))
    alone = np.concatenate([reference.run(None, {"image": image[None]})[0] for image in x])
    assert np.abs(reference.run(None, {"image": x})[0] - alone).max() > 1
    np.savez(tmp_path / "set.npz", x=x, y=alone.argmax(1))
    bundle = packed(path, tmp_path / "set.npz", tmp_path / "bundle", "--gradient", "none")
    assert "each image is run separately" in changes_of(bundle)
    assert "rounds its logits otherwise" not in changes_of(bundle)
    np.testing.assert_allclose(session_of(bundle).logits(x), alone, rtol=1e-5)

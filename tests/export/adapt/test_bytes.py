"""Models that take images as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from runtime.graph.facts import graph_facts
from tests.export.plain import PLAIN, WEIGHTS, X, check_as_torch, network, plain
from tests.export.strangers import changes_of, command, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path

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

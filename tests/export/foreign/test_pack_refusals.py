"""What `pack` refuses, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.export.plain import BODY, LABELS, PLAIN, W1, WEIGHTS, X, no_rule, plain
from tests.export.strangers import command

if TYPE_CHECKING:
    from pathlib import Path


def external(location: str) -> Any:
    model = plain()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def sparse_external() -> Any:
    model = plain()
    tensor = model.graph.sparse_initializer.add(dims=[4]).values
    tensor.CopyFrom(external("../weights.bin").graph.initializer[0])
    return model


def with_inputs(kind: int, *more: str) -> Any:
    model = plain()
    model.graph.input[0].type.tensor_type.elem_type = kind
    for name in more:
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [1]))
    if kind == TensorProto.INT32:
        model.graph.node[0].input[0] = "pixels"
        model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT))
    return model


REFUSED = {
    "an old opset": (plain(opset=8), ("opset 8", "9 and later")),
    "an operation without a rule": (no_rule(), ("Sinh", "no derivative", "--gradient none")),
    "integers as input": (with_inputs(TensorProto.INT32), ("int32", "image")),
    "two inputs": (with_inputs(TensorProto.FLOAT, "mask"), ("image, mask",)),
    "weights outside": (external("../weights.bin"), ("outside its directory",)),
    "sparse weights outside": (sparse_external(), ("outside its directory",)),
    "weights at an absolute path": (external("/etc/hostname"), ("outside its directory",)),
    "weights that are missing": (external("weights.bin"), ("missing",)),
    "features, not classes": (plain([PLAIN[0], "scores = Relu (c)"], out=[1, 6, 4, 4]), ("number per class",)),
    "another image size": (plain(dims=[1, 3, 9, 9]), ("3 x 8 x 8", "3 x 9 x 9")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_cannot_be_used_is_refused_in_words(name: str, data: Path, save: Any, tmp_path: Path) -> None:
    model, words = REFUSED[name]
    save_bytes = tmp_path / "model.onnx"
    save_bytes.write_bytes(model.SerializeToString())
    result = command("pack", save_bytes, "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert "hint: " in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "set.npz"]


@pytest.mark.parametrize("content", [b"", b"not a model", "cut"], ids=["empty", "text", "cut off"])
def test_file_that_is_no_model_is_refused(content: Any, data: Path, tmp_path: Path) -> None:
    whole = plain().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    result = command("pack", tmp_path / "model.onnx", "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert "ONNX" in result.stderr


def test_weights_behind_a_link_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "weights.bin").write_bytes(W1.tobytes())
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "weights.bin").symlink_to(tmp_path / "there" / "weights.bin")
    (tmp_path / "here" / "model.onnx").write_bytes(external("weights.bin").SerializeToString())
    result = command("pack", tmp_path / "here" / "model.onnx", "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "outside its directory" in result.stderr) == (3, True)


def test_file_too_large_for_a_graph_is_refused_unread(data: Path, tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(2**31)
    result = command("pack", tmp_path / "model.onnx", "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "2.1 GB" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.where(np.arange(12) == 3, 7, LABELS)}, "label 7"),
        ({"x": np.where(np.arange(8) == 3, np.nan, X)}, "NaN"),
        ({"x": X[:, :1]}, "1 x 8 x 8"),
    ],
)
def test_images_that_do_not_fit_are_refused(change: Any, words: str, data: Path, save: Any, tmp_path: Path) -> None:
    np.savez(data, **{"x": X, "y": LABELS, **change})
    result = command("pack", save(plain()), "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert words in result.stderr


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--std", "0"], 2),
        (["--mean", "grey"], 2),
        (["--mean", ".5,.5"], 3),
        (["--classes", "a,b"], 3),
        (["--precision", "int8"], 2),
        (["--precision", "fp32,bf16"], 2),
        (["--precision", "fp32", "--ships", "fp16"], 2),
        (["--precision", "int8", "--calibration", "nowhere"], 2),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], code: int, data: Path, save: Any, tmp_path: Path
) -> None:
    result = command("pack", save(plain()), "--data", data, "--out", tmp_path / "bundle", *options)
    assert result.exit_code == code, result.output


def test_calibration_images_that_are_nowhere_are_told_by_their_own_option(
    data: Path, save: Any, tmp_path: Path
) -> None:
    options = ("--precision", "int8", "--calibration", "nowhere", "--out", tmp_path / "bundle")
    result = command("pack", save(plain()), "--data", data, *options)
    assert "--calibration nowhere: no such file" in result.stderr
    assert "--data nowhere" not in result.stderr


MIXED = [*BODY, "z = Add (m, b2)", "a = ReduceMax <keepdims=1> (z, zero)", "scores = Add (z, a)"]
MIXING = {**WEIGHTS, "flat": np.asarray([-1, 96]), "zero": np.asarray([0])}


@pytest.mark.filterwarnings("error")
def test_infinite_logits_are_said_to_be_infinite(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = [*BODY, "a = Add (m, b2)", "far = Mul (a, thousand)", "scores = Exp (far)"]
    model = save(plain(nodes, constants={**WEIGHTS, "thousand": np.float32(1000)}))
    result = command("pack", model, "--data", data, "--out", tmp_path / "bundle")
    assert (result.exit_code, "logits of the graph are infinite" in result.stderr) == (3, True), result.output


@pytest.mark.filterwarnings("error")
def test_outputs_that_are_infinite_for_a_late_image_alone_are_said_to_be_infinite(save: Any, tmp_path: Path) -> None:
    images = np.zeros((12, 3, 8, 8), np.uint8)
    images[9:] = 255
    np.savez(tmp_path / "late.npz", x=images, y=np.arange(12) % 4)
    rising = ["rows = Reshape (image, wide)", "peak = ReduceMax <keepdims=1> (rows, one)", "far = Mul (peak, thousand)"]
    nodes = [*BODY, "a = Add (m, b2)", *rising, "e = Exp (far)", "scores = Add (a, e)"]
    more = {"wide": np.asarray([-1, 192]), "one": np.asarray([1]), "thousand": np.float32(1000)}
    model = save(plain(nodes, constants={**WEIGHTS, **more}))
    result = command("pack", model, "--data", tmp_path / "late.npz", "--out", tmp_path / "bundle")
    assert (result.exit_code, "the outputs of the graph are infinite" in result.stderr) == (3, True), result.output


def test_model_that_mixes_the_images_of_a_batch_is_refused(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain(MIXED, dims=["n", 3, 8, 8], out=["n", 4], constants=MIXING)
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle", "--gradient", "none")
    assert result.exit_code == 3, result.output
    assert "batch of 2" in result.stderr


def test_model_that_mixes_the_images_of_a_batch_is_refused_by_one_image_too(
    data: Path, save: Any, tmp_path: Path
) -> None:
    np.savez(data, x=X[:1], y=LABELS[:1])
    model = plain(MIXED, dims=["n", 3, 8, 8], out=["n", 4], constants=MIXING)
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle", "--gradient", "none")
    assert result.exit_code == 3, result.output
    assert "batch of 2" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--mean", "72.9", "write 72.9/255, and --std 1/255"),
        ("--mean", "123.675,116.28,103.53", "write 123.675/255,116.28/255,103.53/255"),
        ("--std", "90", "write 90/255"),
        ("--mean", "0.5,2,0.5", "--mean"),
    ],
)
@pytest.mark.parametrize("name", ["pack", "verify"])
def test_normalisation_of_images_of_0_to_255_is_refused_and_its_other_writing_named(
    name: str, option: str, value: str, hint: str, data: Path, save: Any, tmp_path: Path
) -> None:
    result = command(name, save(plain()), "--data", data, "--out", tmp_path / "out", option, value)
    assert result.exit_code == 2, result.output
    assert hint in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()

"""Anyone's ONNX file, made a bundle by `pack` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from pydantic import TypeAdapter

from export.foreign.pack_model import name_of
from runtime.bundle.manifest import MANIFEST
from runtime.bundle.opening import open_bundle
from runtime.files import sha256
from runtime.spec import Name
from tests.export.classifiers import torch_gradient
from tests.export.foreign.strangers import command, gradient_of, packed, session_of, stranger
from tests.export.plain import BODY, LABELS, PLAIN, W2, WEIGHTS, X, network, no_rule, plain


def tensorflow_shaped(opset: int) -> Any:
    """Build what tf2onnx makes of a Keras model: channels last, Transposes around convolutions."""
    return stranger(
        [
            "t = Transpose <perm=[0,3,1,2]> (image)",
            "c = Conv <strides=[2,2], pads=[1,1,1,1]> (t, w1)",
            "a = Identity (c)",
            "r = Relu (a)",
            "b = Transpose <perm=[0,2,3,1]> (r)",
            "f = Reshape (b, flat)",
            "m = MatMul (f, w2)",
            "z = Add (m, b2)",
            "scores = Softmax <axis=1> (z)",
        ],
        dims=[1, 8, 8, 3],
        out=[1, 4],
        constants={**WEIGHTS, "w2": W2.reshape(6, 4, 4, 4).transpose(1, 2, 0, 3).reshape(96, 4)},
        opset=opset,
        names=("input_1:0", "Identity:0"),
    )


def renamed(model: Any, old: str, new: str) -> Any:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    return model


def check_as_torch(session: Any, x: Any = X, function: Any = network) -> None:
    expected = function(torch.from_numpy(x)).numpy()
    for batch in (1, 5, len(x)):
        np.testing.assert_allclose(session.logits(x[:batch]), expected[:batch], rtol=0, atol=1e-5)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    gradient = torch_gradient(function, x, cotangent)
    np.testing.assert_allclose(gradient_of(session, x, cotangent), gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 18, 20])
def test_model_in_the_shape_of_tensorflows_is_packed_from_opset_nine_on(
    opset: int, data: Path, save: Any, tmp_path: Path
) -> None:
    model = tensorflow_shaped(opset)
    renamed(renamed(model, "image", "input_1:0"), "scores", "Identity:0")
    bundle = packed(save(model), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle))
    manifest = bundle.manifest
    assert manifest.packed is not None
    said = " / ".join(manifest.packed.changes)
    assert "batch of 1 made dynamic" in said
    assert "Softmax at its end cut off" in said
    assert "channels moved last" in said
    assert (manifest.packed.opset, manifest.packed.file) == (opset, "model.onnx")
    assert manifest.provenance is None
    assert (manifest.evaluation.n, manifest.ships, manifest.classes) == (12, "fp32", ("0", "1", "2", "3"))
    parity = manifest.graphs["fp32"].parity
    assert parity is not None
    assert parity.max_logit_error < 1e-5
    assert parity.median_gradient_error is None


def test_what_was_done_is_said_on_stdout_and_in_the_card(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "z = Add (m, b2)", "scores = Softmax <axis=-1> (z)"])
    result = command(
        "pack", save(model), "--data", data, "--out", tmp_path / "b", "--classes", "a,b,c,d", "--name", "n"
    )
    assert result.exit_code == 0, result.output
    assert "Softmax at its end cut off" in result.stdout
    assert "same prediction 100.00%" in result.stdout
    card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "Packed from model.onnx" in card
    assert "a, b, c, d" in card
    assert "8/255" in card


@pytest.mark.parametrize("weights_as_inputs", [True, False])
@pytest.mark.parametrize("dims", [[1, 3, 8, 8], ["n", 3, 8, 8], ["n", 3, "h", "w"], [4, 3, 8, 8]])
def test_batch_and_sizes_of_any_kind_are_taken(
    dims: list[Any], weights_as_inputs: bool, data: Path, save: Any, tmp_path: Path
) -> None:
    flat = np.asarray([dims[0] if dims[0] == 4 else -1 if dims[0] == "n" else 1, 96])
    model = plain(
        dims=dims,
        out=[dims[0], 4],
        constants={**WEIGHTS, "flat": flat},
        weights_as_inputs=weights_as_inputs,
    )
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


FLATTENINGS = {
    "Flatten": ["f = Flatten (r)"],
    "sizes computed from the batch": [
        "s = Shape (r)",
        "b = Gather <axis=0> (s, zero)",
        "u = Unsqueeze (b, noughts)",
        "t = Concat <axis=0> (u, rest)",
        "f = Reshape (r, t)",
    ],
    "sizes in a Constant": ["t = Constant <value_ints=[1,96]> ()", "f = Reshape (r, t)"],
    "Squeeze": ["v = Reshape (r, tall)", "f = Squeeze (v, places)"],
    "Split, Concat and Slice": [
        "p, q = Split <axis=1> (r, halves)",
        "j = Concat <axis=1> (p, q)",
        "k = Slice (j, noughts, ones, noughts)",
        "f = Flatten (k)",
    ],
    "Expand": ["e = Expand (r, same)", "f = Flatten (e)"],
    "Gather of all, in order": ["l = Reshape (r, minus)", "g = Gather (l, order)", "f = Flatten (g)"],
    "Resize by sizes": ['e = Resize <mode="nearest"> (r, , , same)', "f = Flatten (e)"],
}


@pytest.mark.parametrize("name", FLATTENINGS)
def test_batch_named_anywhere_in_the_graph_is_freed(name: str, data: Path, save: Any, tmp_path: Path) -> None:
    constants = {
        **WEIGHTS,
        "zero": np.asarray(0),
        "noughts": np.asarray([0]),
        "ones": np.asarray([1]),
        "rest": np.asarray([96]),
        "tall": np.asarray([1, 96, 1, 1]),
        "halves": np.asarray([2, 4]),
        "same": np.asarray([1, 6, 4, 4]),
        "places": np.asarray([2, 3]),
        "minus": np.asarray([-1]),
        "order": np.arange(96).reshape(1, 6, 4, 4),
    }
    model = plain([*BODY[:2], *FLATTENINGS[name], "m = MatMul (f, w2)", "scores = Add (m, b2)"], constants=constants)
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


def test_squeeze_without_axes_spares_a_batch_of_one(data: Path, save: Any, tmp_path: Path) -> None:
    nodes = [*BODY[:2], "v = Reshape (r, tall)", "f = Squeeze (v)", "m = MatMul (f, w2)", "scores = Add (m, b2)"]
    constants = {**WEIGHTS, "tall": np.asarray([-1, 96, 1, 1])}
    model = plain(nodes, dims=["n", 3, 8, 8], out=["n", 4], constants=constants)
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")))


@pytest.mark.parametrize("opset", [21, 23])
def test_model_of_a_newer_opset_is_brought_back(opset: int, data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(plain(opset=opset)), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle))
    assert bundle.manifest.packed is not None
    assert f"opset {opset} brought to 20" in bundle.manifest.packed.changes


def test_node_of_a_newer_opset_without_a_way_back_is_refused(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain([*BODY, "z = Add (m, b2)", "scores = Swish (z)"], opset=24)
    result = command("pack", save(model), "--data", data, "--out", tmp_path / "bundle")
    assert result.exit_code == 3, result.output
    assert "opset 24" in result.stderr
    assert "export it again with opset 18 to 20" in result.stderr


def test_class_token_is_joined_to_every_image(data: Path, save: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    token = random.standard_normal((1, 1, 64)).astype(np.float32)
    head = random.standard_normal((256, 4)).astype(np.float32) / 9
    model = plain(
        [
            "p = Reshape (image, patches)",
            "j = Concat <axis=1> (token, p, token)",
            "g = Gather <axis=1> (j, four)",
            "f = Reshape (g, flat)",
            "scores = MatMul (f, head)",
        ],
        constants={
            "patches": np.asarray([1, 3, 64]),
            "token": token,
            "four": np.asarray([4, 0, 3, 1]),
            "flat": np.asarray([1, 256]),
            "head": head,
        },
    )

    def function(x: Any) -> Any:
        rows = torch.from_numpy(token).expand(len(x), 1, 64)
        joined = torch.cat([rows, x.reshape(-1, 3, 64), rows], dim=1)
        return joined[:, [4, 0, 3, 1]].flatten(1) @ torch.from_numpy(head)

    np.savez(data, x=X, y=function(torch.from_numpy(X)).argmax(1).numpy())
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle")), function=function)


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        (["--mean", ".49,.48,.45", "--std", ".25,.24,.26"], [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]),
        (["--mean", "0.5", "--std", "0.25"], [0.5], [0.25]),
        (["--std", "1/255"], [0.0], [1 / 255]),
    ],
)
def test_normalisation_goes_into_the_graph(
    options: list[str], mean: Any, std: Any, data: Path, save: Any, tmp_path: Path
) -> None:
    m, s = (torch.tensor(values).reshape(-1, 1, 1) for values in (mean, std))

    def function(x: Any) -> Any:
        return network((x - m) / s) / 100

    nodes = [*BODY, "z = Add (m, b2)", "scores = Div (z, hundred)"]
    model = plain(nodes, constants={**WEIGHTS, "hundred": np.float32(100)})
    check_as_torch(session_of(packed(save(model), data, tmp_path / "bundle", *options)), function=function)


def test_normalisation_of_its_own_is_differentiated(data: Path, save: Any, tmp_path: Path) -> None:
    half = np.full((1, 3, 1, 1), 0.5, np.float32)
    nodes = ["s = Sub (image, half)", "n = Div (s, half)", *[line.replace("image", "n") for line in PLAIN]]
    bundle = packed(save(plain(nodes, constants={**WEIGHTS, "half": half})), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle), function=lambda x: network((x - 0.5) / 0.5))


@pytest.mark.parametrize("option", [[], ["--layout", "nhwc"]])
@pytest.mark.parametrize("channels_last", [True, False])
def test_images_in_either_layout_serve_a_model_in_either(
    channels_last: bool, option: list[str], data: Path, save: Any, tmp_path: Path
) -> None:
    np.savez(data, x=X.transpose(0, 2, 3, 1) if channels_last else X, y=LABELS)
    model = renamed(renamed(tensorflow_shaped(15), "image", "input_1:0"), "scores", "Identity:0")
    check_as_torch(session_of(packed(save(model), data, tmp_path / "one", *option)))
    check_as_torch(session_of(packed(save(plain()), data, tmp_path / "two", *option)))


def test_one_of_two_outputs_is_taken_where_only_it_fits(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain()
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 6, 4, 4]))
    bundle = packed(save(model), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle))
    assert bundle.manifest.packed is not None
    assert "only scores kept" in " ".join(bundle.manifest.packed.changes)


def test_model_in_float16_ships_in_float16_and_is_differentiated_in_it(data: Path, save: Any, tmp_path: Path) -> None:
    model = plain(kind=TensorProto.FLOAT16)
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert (bundle.manifest.ships, list(bundle.manifest.graphs)) == ("fp16", ["fp16"])
    session = session_of(bundle)
    original = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (half,) = original.run(None, {"image": X[:1].astype(np.float16)})
    # ONNX Runtime's CPU computes float16 graphs in float32 where it can.
    np.testing.assert_allclose(session.logits(X[:1]), half.astype(np.float32), rtol=0, atol=5e-3)
    cotangent = np.ones((12, 4), np.float32)
    expected = torch_gradient(network, X, cotangent)
    np.testing.assert_allclose(gradient_of(session, X, cotangent), expected, rtol=0, atol=2e-2)


def test_model_in_float64_is_brought_to_float32(data: Path, save: Any, tmp_path: Path) -> None:
    weight = np.random.default_rng(4).standard_normal((192, 4))
    model = plain(["f = Flatten (image)", "scores = MatMul (f, w)"], constants={"w": weight}, kind=TensorProto.DOUBLE)
    bundle = packed(save(model), data, tmp_path / "bundle")
    check_as_torch(session_of(bundle), function=lambda x: x.flatten(1) @ torch.from_numpy(weight).float())
    assert bundle.manifest.packed is not None
    assert "float64 brought to float32" in bundle.manifest.packed.changes


EXTERNAL = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}


def test_weights_in_a_file_beside_the_model_are_read(data: Path, tmp_path: Path) -> None:
    onnx.save(plain(), tmp_path / "model.onnx", **EXTERNAL)
    bundle = packed(tmp_path / "model.onnx", data, tmp_path / "bundle")
    (tmp_path / "weights.bin").unlink()
    check_as_torch(session_of(bundle))


def test_a_models_digest_is_of_its_file_and_of_the_weights_beside_it(data: Path, tmp_path: Path) -> None:
    found = {}
    for name, scale, how in (("whole", 1.0, {}), ("apart", 1.0, EXTERNAL), ("trained", 2.0, EXTERNAL)):
        model = plain()
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                weights = np.float32(scale) * onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.onnx"
        onnx.save(model, path, **how)
        origin = packed(path, data, tmp_path / name / "bundle").manifest.packed
        assert origin is not None
        found[name] = origin.sha256, sha256(path.read_bytes())
    assert found["whole"][0] == found["whole"][1]
    assert found["apart"][1] == found["trained"][1]
    assert found["apart"][0] != found["trained"][0]


def test_folders_of_images_name_the_classes(save: Any, tmp_path: Path) -> None:
    from PIL import Image

    for number, name in enumerate(("ant", "bee", "cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        pixels = (255 * X[number].transpose(1, 2, 0)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / name / "0.png")
    bundle = packed(save(plain()), tmp_path / "set", tmp_path / "bundle")
    assert bundle.manifest.classes == ("ant", "bee", "cat", "dog")


def test_model_without_a_rule_is_packed_without_gradients_on_request(data: Path, save: Any, tmp_path: Path) -> None:
    bundle = packed(save(no_rule()), data, tmp_path / "bundle", "--gradient", "none")
    assert bundle.manifest.graphs["fp32"].gradient is None
    np.testing.assert_allclose(
        session_of(bundle).logits(X), network(torch.from_numpy(X)).cumsum(1).numpy(), rtol=0, atol=1e-5
    )


def test_int8_of_a_model_without_a_rule_costs_what_it_does_clean(data: Path, save: Any, tmp_path: Path) -> None:
    others = np.random.default_rng(7).random(X.shape, dtype=np.float32)
    np.savez(tmp_path / "train.npz", x=others, y=LABELS)
    asked = ["--precision", "int8", "--calibration", tmp_path / "train.npz", "--gradient", "none"]
    result = command("pack", save(no_rule()), "--data", data, "--out", tmp_path / "bundle", *asked)
    assert result.exit_code == 0, result.output
    assert "plain int8" in result.stderr
    assert "PGD" not in result.stderr
    graph = open_bundle(tmp_path / "bundle").manifest.graphs["int8"]
    assert graph.gradient is None
    assert graph.calibration is not None


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("my model (final)", "my-model-final"),
        (".hidden", "hidden"),
        ("модель", "model"),
        ("a" * 150, "a" * 100),
        ("net_v1.2", "net_v1.2"),
    ],
)
def test_name_of_a_file_becomes_one_that_a_manifest_takes(stem: str, name: str) -> None:
    assert name_of(Path(f"{stem}.onnx")) == name
    assert TypeAdapter(Name).validate_python(name) == name


def test_name_that_is_none_is_a_usage_error(data: Path, save: Any, tmp_path: Path) -> None:
    result = command("pack", save(plain()), "--data", data, "--name", "../up", "--out", tmp_path / "bundle")
    assert (result.exit_code, "is not a name" in result.stderr) == (2, True)


def test_name_with_blanks_is_packed_under_a_plain_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(plain(), "my model.onnx")
    result = command("pack", "my model.onnx", "--data", data)
    assert result.exit_code == 0, result.output
    assert open_bundle(tmp_path / "bundles" / "my-model").manifest.name == "my-model"
    shown = command("inspect", "bundles/my-model")
    assert "packed from my model.onnx, opset" in shown.stdout


def test_same_file_gives_the_same_graphs(data: Path, save: Any, tmp_path: Path) -> None:
    model = save(plain())
    first, second = (packed(model, data, tmp_path / name).manifest for name in ("one", "two"))
    assert first.graphs == second.graphs
    files = [{n: e for n, e in m.files.items() if n.endswith((".onnx", ".npz"))} for m in (first, second)]
    assert files[0] == files[1]
    assert open_bundle(tmp_path / "one").manifest == first
    assert MANIFEST in {path.name for path in (tmp_path / "one").iterdir()}


def test_a_model_is_packed_in_three_precisions_calibrated_on_images_that_are_not_judged(
    data: Path, save: Any, tmp_path: Path
) -> None:
    more = np.random.default_rng(9).random((40, *X.shape[1:]), dtype=np.float32)
    np.savez(tmp_path / "train.npz", x=np.concatenate([X, more]), y=np.zeros(len(X) + 40, np.int64))
    asked = ["--precision", "fp32,fp16,int8", "--ships", "int8", "--calibration", tmp_path / "train.npz"]
    result = command("pack", save(plain()), "--data", data, "--out", tmp_path / "bundle", *asked, "--keep-fp16", "none")
    assert result.exit_code == 0, result.output
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert (set(manifest.graphs), manifest.ships) == ({"fp32", "fp16", "int8"}, "int8")
    used = manifest.graphs["int8"].calibration
    assert used is not None
    assert used.data.n == 40
    assert "ranges by minmax on 40 images" in result.stdout
    assert all(graph.gradient for graph in manifest.graphs.values())


def test_a_model_that_comes_quantised_is_packed_and_differentiated_as_it_is(
    data: Path, save: Any, tmp_path: Path
) -> None:
    constants = {**WEIGHTS, "scale": 0.01, "zero": np.uint8(10)}
    nodes = [
        "q = QuantizeLinear (image, scale, zero)",
        "p = DequantizeLinear (q, scale, zero)",
        BODY[0].replace("image", "p"),
        *BODY[1:],
        "scores = Add (m, b2)",
    ]
    bundle = packed(save(plain(nodes, constants=constants)), data, tmp_path / "bundle")
    assert (bundle.manifest.ships, list(bundle.manifest.graphs)) == ("int8", ["int8"])
    session = session_of(bundle)
    cotangent = np.ones((12, 4), np.float32)

    def rounded(x: Any) -> Any:
        return network(torch.fake_quantize_per_tensor_affine(x, 0.01, 10, 0, 255))

    np.testing.assert_allclose(
        gradient_of(session, X, cotangent), torch_gradient(rounded, X, cotangent), rtol=0, atol=1e-4
    )
    result = command("pack", save(plain(nodes, constants=constants)), "--data", data, "--precision", "fp32")
    assert result.exit_code == 3
    assert "is quantised" in result.stderr


@pytest.mark.parametrize(
    ("mean", "said"), [("p = ReduceMean <keepdims=0> (r, one)", True), ("p = Identity (f)", False)]
)
def test_logits_whose_last_bits_depend_on_the_batch_are_said(
    mean: str, said: bool, data: Path, save: Any, tmp_path: Path
) -> None:
    nodes = [*BODY[:3], mean, "g = Flatten (p)", "scores = MatMul (g, w2)"]
    w2 = np.random.default_rng(3).standard_normal((16, 4)).astype(np.float32) if said else W2
    model = plain(nodes, constants={**WEIGHTS, "w2": w2, "one": np.asarray([1])})
    np.savez(data, x=X, y=np.zeros(len(X), np.int64))
    bundle = packed(save(model), data, tmp_path / "bundle")
    assert bundle.manifest.packed is not None
    assert ("in another batch" in " ".join(bundle.manifest.packed.changes)) == said

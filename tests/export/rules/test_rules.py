from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from export.rules import RULES, RULES_OF_MANY
from runtime.errors import BadModel
from tests.export.classifiers import attack_feeds, classifier, evaluate
from tests.export.rules.cases import Case, check_same_bits_everywhere, gradient_of, head_of, model_of
from tests.export.rules.operations import CASES, FLOAT_ATTRIBUTES, IN_FLOAT_ALONE
from tests.export.rules.test_integers import CASES as INTEGERS
from tests.export.surrogates.test_staircases import CASES as STAIRCASES


@pytest.mark.parametrize("name", sorted(set(CASES) - IN_FLOAT_ALONE))
def test_gradient_of_every_operation_equals_torch_in_float64(name: str) -> None:
    ours, expected = gradient_of(CASES[name], np.float64)
    tolerance = FLOAT_ATTRIBUTES.get(name, 1e-11)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_every_operation_on_onnx_runtime_equals_torch(name: str) -> None:
    ours, expected = gradient_of(CASES[name], np.float32)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_every_rule_has_a_case() -> None:
    cases = (*CASES.values(), *STAIRCASES.values(), *INTEGERS.values())
    used = {line.split("=")[1].split()[0] for case in cases for line in case.nodes.split("\n")}
    assert {*RULES, *RULES_OF_MANY} <= used
    assert not RULES.keys() & RULES_OF_MANY.keys()


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_every_operation_has_the_same_bits_wherever_the_row_is(name: str) -> None:
    check_same_bits_everywhere(CASES[name])


def test_nothing_is_lost_of_what_was_gathered_often_from_one_place() -> None:
    model = classifier(
        [
            "x = Flatten (input)",
            "t = Transpose <perm=[1,0]> (x)",
            "g = GatherND (t, often)",
            "m = ReduceMean <keepdims=1> (g, first)",
            "y = Transpose <perm=[1,0]> (m)",
            "logits = MatMul (y, head)",
        ],
        image=(1, 1, 1),
        classes=2,
        constants={"often": np.zeros((200_000, 1), np.int64), "first": np.asarray([0]), "head": np.ones((1, 2))},
        dtype=np.float32,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 4
    session = onnxruntime.InferenceSession(to_bytes(gradient_graph(prepare(model))), options)
    images, cotangent = np.ones((8, 1, 1, 1), np.float32), np.ones((8, 2), np.float32)
    for _ in range(3):
        (found,) = session.run(["gradient"], attack_feeds(images, 2, cotangent=cotangent))
        np.testing.assert_allclose(found, 2, rtol=1e-2)


@pytest.mark.parametrize("nodes", ["y = Clip (x, low, high)", "a = Clip (x, low)\ny = Clip (a, , high)"])
def test_clip_passes_the_gradient_of_pixels_on_its_bounds(nodes: str) -> None:
    case = Case(nodes, lambda x, low, high: x.clamp(low, high), {"low": 0.0, "high": 1.0}, (1, 4, 4))
    x = np.random.default_rng(5).choice(np.asarray([-0.5, 0, 0.25, 1, 1.5], np.float32), (3, 1, 4, 4))
    cotangent = np.random.default_rng(6).standard_normal((3, 5)).astype(np.float32)
    found = evaluate(gradient_graph(model_of(case, np.float32)), attack_feeds(x, 5, cotangent=cotangent))["gradient"]
    unclipped = (cotangent @ head_of(case).T).reshape(x.shape)
    np.testing.assert_allclose(found, np.where((x >= 0) & (x <= 1), unclipped, 0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("y = Det (input)", ("Det", "no derivative")),
        ("y = Gather <axis=0> (input, one)", ("Gather", "batch")),
        ("y = Slice (input, one, two, none)", ("Slice", "batch")),
        ("y = ReduceMax <keepdims=0> (input, rest)", ("ReduceMax", "batch")),
        ("y = Pow (b, input)", ("Pow", "exponent")),
        ('y = Einsum <equation="bcii->bc"> (input)', ("Einsum", "bcii->bc")),
        (
            'y = Resize <mode="linear", coordinate_transformation_mode="tf_crop_and_resize"> (input, box, scales)',
            ("Resize", "crops"),
        ),
        (
            "t = Concat <axis=1> (input, input)\ng = Transpose <perm=[0,2,3,1]> (t)\n"
            'y = GridSample <mode="nearest"> (input, g)',
            ("GridSample", "sampling points depend on the image"),
        ),
        ("space = Unsqueeze (input, two)\ny = GridSample (space, places_in_space)", ("GridSample", "two dimensions")),
        ("p = ArgMax <axis=2> (input)\ny = GatherElements <axis=2> (table, p)", ("GatherElements", "integers that")),
        ('y = ScatterND <reduction="max"> (input, places_of_each, input)', ("ScatterND", "reduces by 'max'")),
        ("y = MatMul (input, v)", ("MatMul", "one dimension")),
        ("y = Softmax <axis=0> (input)", ("Softmax", "batch")),
        ("y = ReduceMean (input)", ("ReduceMean", "batch")),
        (
            "g = ReduceMean <keepdims=0> (input, rest)\ny = BatchNormalization (input, g, b, b, b)",
            ("BatchNormalization", "computed at run time"),
        ),
    ],
)
def test_operation_that_cannot_be_differentiated_is_named(nodes: str, words: tuple[str, ...]) -> None:
    model = classifier(
        [*nodes.split("\n"), "f = Reshape (y, shape)", "logits = MatMul (f, head)"],
        image=(1, 3, 3),
        classes=2,
        constants={
            "pads": np.asarray([0, 0, 0, 0, 0, 0, 0, 0]),
            "shape": np.asarray([-1, 1]),
            "head": np.ones((1, 2)),
            "b": np.ones(1),
            "v": np.ones(3),
            "rest": np.asarray([0, 2, 3]),
            "places_in_space": np.ones((2, 1, 1, 3, 3)),
            "table": np.ones((2, 1, 3, 3)),
            "places_of_each": np.asarray([[0], [0]]),
            "none": np.asarray([0]),
            "one": np.asarray([1]),
            "two": np.asarray([2]),
            "box": np.asarray([0.0, 0, 0, 0, 1, 1, 1, 1]),
            "scales": np.asarray([1.0, 1, 2, 2]),
        },
        dtype=np.float32,
    )
    with pytest.raises(BadModel) as caught:
        gradient_graph(prepare(model))
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint

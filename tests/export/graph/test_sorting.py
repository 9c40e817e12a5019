"""Nodes in whatever order are brought behind those that they read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from export.graph.sorting import sort_nodes
from runtime.errors import BadModel
from tests.export.classifiers import classifier

NODES = ["a = Neg (input)", "b = Exp (a)", "c = Mul (a, b)", "d = Add (c, b)", "logits = Flatten (d)"]


@given(st.permutations(range(len(NODES))))
def test_nodes_in_any_order_are_sorted_and_answer_the_same(order: list[int]) -> None:
    sorted_, shuffled = (
        classifier(nodes, image=(1, 1, 3), classes=3) for nodes in (NODES, [NODES[place] for place in order])
    )
    sort_nodes(shuffled.graph)
    onnx.checker.check_model(shuffled)
    x = np.random.default_rng(0).standard_normal((2, 1, 1, 3))
    expected, found = (ReferenceEvaluator(model).run(None, {"input": x})[0] for model in (sorted_, shuffled))
    np.testing.assert_array_equal(found, expected)


def test_nodes_in_order_stay_as_they_stand() -> None:
    nodes = [NODES[0], "z = Sqrt (input)", *NODES[1:]]
    model = classifier(nodes, image=(1, 1, 3), classes=3)
    before = model.SerializeToString()
    sort_nodes(model.graph)
    assert model.SerializeToString() == before


def test_what_a_branch_reads_comes_before_it() -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["late"], ["out"])], "branch", [], [helper.make_empty_tensor_value_info("out")]
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
            helper.make_node("Exp", ["x"], ["late"]),
        ],
        "outer",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    sort_nodes(graph)
    assert [node.op_type for node in graph.node] == ["Exp", "If"]


def test_nodes_that_read_each_other_are_refused_by_name() -> None:
    model = classifier(["b = Exp (c)", "c = Neg (b)", "logits = Flatten (input)"], image=(1, 1, 3), classes=3)
    with pytest.raises(BadModel, match=r"'b' \(Exp\) depends on its own output"):
        sort_nodes(model.graph)

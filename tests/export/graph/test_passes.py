from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.graph import passes
from export.graph.passes import Pass, has_no_metadata, prepare
from runtime.errors import BadModel
from tests.export.classifiers import classifier


def small(**changes: Any) -> Any:
    """Build a model with a Constant node, an Identity and a constant expression in it."""
    given: dict[str, Any] = {
        "nodes": [
            "two = Constant <value_float=2.0> ()",
            "four = Mul (two, two)",
            "x = Identity (input)",
            "scaled = Mul (x, four)",
            "logits = Flatten (scaled)",
        ],
        "image": (1, 1, 3),
        "classes": 3,
        "dtype": np.float32,
        **changes,
    }
    return classifier(given.pop("nodes"), **given)


def test_constants_are_folded_and_identities_dropped() -> None:
    prepared = prepare(small()).model
    assert [node.op_type for node in prepared.graph.node] == ["Mul", "Flatten"]
    assert [tensor.name for tensor in prepared.graph.initializer] == ["four"]


def test_documentation_and_properties_are_stripped() -> None:
    model = small()
    model.doc_string = model.graph.node[0].doc_string = "/home/someone/model.py"
    model.graph.node[3].metadata_props.add(key="stack_trace", value="File ...")
    model.metadata_props.add(key="author", value="someone")
    model.producer_name = "someone"
    assert not has_no_metadata(model)
    prepared = prepare(model).model
    assert has_no_metadata(prepared)
    assert b"someone" not in prepared.SerializeToString()


def test_model_given_is_not_changed() -> None:
    model = small()
    before = model.SerializeToString()
    prepare(model)
    assert model.SerializeToString() == before


def test_pass_that_changes_the_logits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: Any) -> None:
        model.graph.node[3].op_type = "Add"

    monkeypatch.setattr(passes, "PASSES", (Pass("spoil", spoil, lambda _: True),))
    with pytest.raises(BadModel, match="changed its logits"):
        prepare(small())


def test_graph_that_is_random_is_named_so_and_no_defect_of_ours() -> None:
    nodes = ["on = Constant <value = bool {1}> ()", "tenth = Constant <value_float=0.5> ()"]
    nodes += ["some = Dropout (input, tenth, on)", "logits = Flatten (some)"]
    with pytest.raises(BadModel, match="differently each time") as caught:
        prepare(small(nodes=nodes, image=(1, 8, 8), classes=64))
    assert "dropout" in str(caught.value.hint)


def test_pass_that_does_not_do_its_work_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "PASSES", (Pass("idle", lambda _: None, lambda _: False),))
    with pytest.raises(BadModel, match="'idle'"):
        prepare(small())


@pytest.mark.parametrize(("opset", "taken"), [(17, False), (18, True), (20, True), (21, False)])
def test_only_supported_opsets_are_taken(opset: int, taken: bool) -> None:
    if taken:
        assert prepare(small(opset=opset)).model.opset_import[0].version == opset
        return
    with pytest.raises(BadModel, match=f"opset {opset}") as caught:
        prepare(small(opset=opset))
    assert caught.value.hint


def rename_output(model: Any) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "probabilities"


def fix_batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def free_width(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"


def break_order(model: Any) -> None:
    model.graph.node.reverse()


@pytest.mark.parametrize("damage", [rename_output, fix_batch, free_width, break_order])
def test_model_with_another_interface_is_refused(damage: Any) -> None:
    model = small()
    damage(model)
    with pytest.raises(BadModel):
        prepare(model)


def test_logits_that_are_no_numbers_are_said_to_be_nan() -> None:
    nodes = ["scaled = Mul (input, nan)", "logits = Flatten (scaled)"]
    model = classifier(nodes, image=(1, 1, 3), classes=3, constants={"nan": np.float32(np.nan)}, dtype=np.float32)
    with pytest.raises(BadModel, match="the logits of the graph are NaN") as caught:
        prepare(model)
    assert "weights" in str(caught.value.hint)

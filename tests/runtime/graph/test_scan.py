"""Graphs that reach outside their own bytes are refused before an engine sees them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.backends.ort import OrtSession
from runtime.bundle.opening import open_bundle
from runtime.errors import BadModel
from runtime.graph.scan import MESSAGES, refuse_outside_data
from tests.runtime.bundle.bundles import write_bundle


def external(location, name="w"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[12], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(nodes, initializers=(), functions=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("input", 1, ["B", 12])], [value("logits", 1, ["B", 12])], list(initializers)
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)


def initializer(location):
    return model([helper.make_node("Add", ["input", "w"], ["logits"])], [external(location)])


def constant(location):
    nodes = [helper.make_node("Constant", [], ["w"], value=external(location))]
    return model([*nodes, helper.make_node("Add", ["input", "w"], ["logits"])])


def inside_a_branch(location):
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", 1, [12])],
        [external(location)],
    )
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    nodes = [helper.make_node("If", ["true"], ["w2"], then_branch=branch, else_branch=branch)]
    return model([*nodes, helper.make_node("Add", ["input", "w2"], ["logits"])], [true])


def inside_a_function(location):
    body = [helper.make_node("Constant", [], ["w"], value=external(location))]
    function = helper.make_function(
        "own", "f", ["x"], ["y"], [*body, helper.make_node("Add", ["x", "w"], ["y"])], [helper.make_opsetid("", 18)]
    )
    return model([helper.make_node("f", ["input"], ["logits"], domain="own")], functions=[function])


def list_of_tensors(location):
    node = helper.make_node("Identity", ["input"], ["logits"])
    node.attribute.append(onnx.AttributeProto(name="t", type=onnx.AttributeProto.TENSORS, tensors=[external(location)]))
    return model([node])


def sparse(location):
    made = model([helper.make_node("Identity", ["input"], ["logits"])])
    made.graph.sparse_initializer.add(values=external(location), dims=[12])
    return made


PLACES = (initializer, constant, inside_a_branch, inside_a_function, list_of_tensors, sparse)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
def test_external_data_is_refused_wherever_it_is_and_named(place, location):
    with pytest.raises(BadModel, match="refers to data outside the bundle") as caught:
        refuse_outside_data("it", place(location).SerializeToString())
    assert repr(location) in caught.value.message
    assert caught.value.hint


def test_onnxruntime_alone_would_read_the_working_directory(tmp_path, monkeypatch):
    """Why the graph is searched: given bytes, it takes external data from where it happens to stand."""
    monkeypatch.chdir(tmp_path)
    np.arange(12, dtype=np.float32).tofile("weights.bin")
    read = OrtSession(initializer("weights.bin").SerializeToString(), None, precision="fp32")
    assert read.logits(np.zeros((1, 12), np.float32))[0, 11] == 11


def test_a_bundle_whose_graph_reaches_outside_is_refused_though_its_digests_hold(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.arange(12, dtype=np.float32).tofile("weights.bin")
    graph = initializer("weights.bin").SerializeToString()
    path = write_bundle(tmp_path / "bundle", files | {"model.fp32.grad.onnx": graph}, n=60)
    with pytest.raises(BadModel, match=r"model\.fp32\.grad\.onnx refers to data outside the bundle: 'weights\.bin'"):
        open_bundle(path)


def test_a_compiled_engine_inside_a_graph_is_refused():
    node = helper.make_node("EPContext", ["input"], ["logits"], domain="com.microsoft", embed_mode=0)
    with pytest.raises(BadModel, match="an EPContext node"):
        refuse_outside_data("it", model([node]).SerializeToString())


def test_a_graph_that_only_speaks_of_locations_is_accepted():
    weights = numpy_helper.from_array(np.ones(12, np.float32), "location")
    made = model([helper.make_node("Add", ["input", "location"], ["logits"], name="EPContext")], [weights])
    made.doc_string = "location"
    refuse_outside_data("it", made.SerializeToString())


def varint(value, length=0):
    digits = []
    while value or not digits or len(digits) < length:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits[-1] &= 0x7F
    return bytes(digits)


def field(number, content, *, padded=0, overflow=0):
    return varint((number << 3 | 2) + (overflow << 32), padded) + varint(len(content), padded and 5) + content


@pytest.mark.parametrize("padded", [0, 5])
def test_numbers_written_longer_than_needed_hide_nothing(padded):
    """A parser accepts a padded number; a search for the plain bytes of a tag would not see it."""
    entry = field(1, b"location", padded=padded) + field(2, b"/etc/passwd", padded=padded)
    graph = field(5, field(13, entry, padded=padded), padded=padded)
    with pytest.raises(BadModel, match="'/etc/passwd'"):
        refuse_outside_data("it", field(7, graph, padded=padded))


def test_an_external_mark_with_bits_that_parsers_drop_is_seen():
    tensor = varint(14 << 3) + varint(2**32 + 1) + field(8, b"location")
    with pytest.raises(BadModel, match="marked external"):
        refuse_outside_data("it", field(7, field(5, tensor)))


DAMAGED = {
    "a tag with bits that parsers drop": field(7, b"location", overflow=1),
    "a field longer than its message": b"\x3a\x7flocation",
    "an endless number": b"\x80" * 11 + b"location",
    "a cut number": b"\x0a\x08location\x80",
    "a group": b"\x3b" + b"location",
    "text": b"location, location, location",
}


@pytest.mark.parametrize("graph", DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_followed_is_no_graph(graph):
    with pytest.raises(BadModel, match="is no ONNX graph"):
        refuse_outside_data("it", graph)


def test_nesting_without_end_is_no_graph():
    data = field(8, b"location")
    for number in (6, 5, 1) * 2000:  # a graph in an attribute of a node of a graph
        data = field(number, data)
    with pytest.raises(BadModel, match="graphs nest too deeply"):
        refuse_outside_data("it", field(7, data))


def test_the_table_is_that_of_onnx_proto():
    """Every field of a message in the table that is itself, or leads to, a tensor is in the table, under its number."""
    leads = {name: message.inside for name, message in MESSAGES.items()}
    for name in MESSAGES:
        described = getattr(onnx, name).DESCRIPTOR
        expected = {
            entry.number: entry.message_type.name
            for entry in described.fields
            if entry.message_type is not None and entry.message_type.name in MESSAGES
        }
        assert leads[name] == expected, name
    tensor = onnx.TensorProto.DESCRIPTOR.fields_by_name
    assert MESSAGES["TensorProto"].external_data == tensor["external_data"].number
    assert MESSAGES["TensorProto"].data_location == tensor["data_location"].number
    assert MESSAGES["NodeProto"].operator == onnx.NodeProto.DESCRIPTOR.fields_by_name["op_type"].number
    roots = {onnx.ModelProto.DESCRIPTOR.fields_by_name[name].message_type.name for name in ("graph", "functions")}
    assert roots <= set(MESSAGES)

"""What a graph is, is read from its bytes, whatever it is called: quantised, its floating-point type, staircases."""

import onnx
import pytest
from onnx import TensorProto, helper, parser

from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import Graph
from runtime.bundle.opening import open_bundle
from runtime.errors import BadBundle, BadModel
from runtime.graph.facts import NUMBERS, graph_facts, staircases
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, HALVED, IN_BYTES, ROUNDED, graph


def model(body, *, opsets='"" : 18, "com.microsoft" : 1, "own" : 1', functions=""):
    """Return the bytes of a graph of `body`, `input` to `logits`, both float [B, 4]."""
    text = f"""<ir_version: 9, opset_import: [{opsets}]>
      g (float[B, 4] input) => (float[B, 4] logits) {{ {body} }} {functions}"""
    return parser.parse_model(text).SerializeToString()


STEPS = {
    "Round": "a = Round (input) logits = Identity (a)",
    "Floor": "a = Floor (input) logits = Neg (a)",
    "Ceil": "logits = Ceil (input)",
    "Sign": "logits = Sign (input)",
    "Greater": "t = Constant <value_float = 0.0> () c = Greater (input, t) logits = Cast <to = 1> (c)",
    "LessOrEqual": "t = Constant <value_float = 0.0> () c = LessOrEqual (input, t) logits = Where (c, input, t)",
    "Cast": "i = Cast <to = 6> (input) logits = Cast <to = 1> (i)",
    "OneHot": "i = Identity (input) logits = OneHot <axis = -1> (i, i, i)",
    "ArgMax": "a = ArgMax <axis = 1> (input) logits = Expand (input, a)",
    "TopK": "k = Constant <value_ints = [4]> () v, i = TopK (input, k) logits = Identity (v)",
    "Mod": "o = Constant <value_float = 1.0> () m = Mod <fmod = 1> (input, o) logits = Sub (input, m)",
    "MaxPool": "v, i = MaxPool <kernel_shape = [2, 2]> (input) logits = Cast <to = 1> (i)",
    "NonMaxSuppression": "i = NonMaxSuppression (input, input) logits = Cast <to = 1> (i)",
    "GridSample": 'logits = GridSample <mode = "nearest"> (input, input)',
    "Binarizer": "logits = ai.onnx.ml.Binarizer (input)",
    "TreeEnsembleRegressor": "logits = ai.onnx.ml.TreeEnsembleRegressor (input)",
}


@pytest.mark.parametrize("kind", STEPS)
def test_an_operation_that_answers_in_steps_is_found_and_named(kind):
    found = graph_facts(model(STEPS[kind]))
    assert found.staircases == (kind,)
    assert found.stepped
    assert (found.quantised, found.computes_in, found.precision) == (False, "float32", "fp32")
    (node,) = staircases(model(STEPS[kind]))
    assert node.split()[0] == kind


SMOOTH = {
    "nothing but slopes": "a = Relu (input) logits = Tanh (a)",
    "casts between floating-point types": "a = Cast <to = 11> (input) logits = Cast <to = 1> (a)",
    "what is computed of the shape": "s = Shape (input) f = Cast <to = 1> (s) r = Round (f) i = Cast <to = 7> (r) "
    "logits = Expand (input, i)",
    "what is computed of constants": "c = Constant <value_float = 0.5> () r = Round (c) logits = Mul (input, r)",
    "a pooling that keeps no places": "a = MaxPool <kernel_shape = [2, 2]> (input) logits = Tanh (a)",
    "places between pixels": "logits = GridSample (input, input)",
    "places between more pixels": 'logits = GridSample <mode = "cubic"> (input, input)',
    "what leads nowhere": "a = Round (input) logits = Tanh (input)",
    "what leads to a shape alone": "a = Round (input) s = Shape (a) logits = Reshape (input, s)",
}


@pytest.mark.parametrize("body", SMOOTH.values(), ids=SMOOTH)
def test_a_graph_without_steps_on_the_way_of_its_numbers_has_none(body):
    assert graph_facts(model(body)).staircases == ()


QUANTISED = [
    "q = QuantizeLinear (input, s, z) logits = DequantizeLinear (q, s, z)",
    "q, s, z = DynamicQuantizeLinear (input) logits = DequantizeLinear (q, s, z)",
    "logits = QLinearMatMul (input, a, b, w, c, d, e, f)",
    "logits = QLinearConv (input, a, b, w, c, d, e, f)",
    "logits = com.microsoft.QLinearAdd (input, a, b, w, c, d, e, f)",
    "logits = com.microsoft.QGemm (input, a, b, w, c, d, e, f)",
    "logits = MatMulInteger (input, w)",
    "logits = ConvInteger (input, w)",
    "logits = com.microsoft.DynamicQuantizeMatMul (input, w, s)",
    "w = DequantizeLinear (v, s) logits = MatMul (input, w)",
]


@pytest.mark.parametrize("body", QUANTISED)
def test_a_graph_that_quantises_in_whatever_form_is_int8(body):
    found = graph_facts(model(body))
    assert (found.quantised, found.precision, found.stepped) == (True, "int8", True)


def test_an_operation_that_only_sounds_so_is_not_quantised():
    assert not graph_facts(model("logits = com.microsoft.QuickGelu (input)")).quantised


HALF = helper.make_tensor("half", TensorProto.FLOAT16, [1], [0.5])


def in_an_initializer(made):
    made.graph.initializer.append(HALF)


def in_a_constant(made):
    made.graph.node.insert(0, helper.make_node("Constant", [], ["half"], value=HALF))


def in_a_cast(made):
    made.graph.node.insert(0, helper.make_node("Cast", ["input"], ["half"], to=TensorProto.FLOAT16))


@pytest.mark.parametrize("place", [in_an_initializer, in_a_constant, in_a_cast])
def test_the_narrowest_type_is_what_a_graph_computes_in(place):
    made = onnx.load_from_string(model("w = Cast <to = 1> (half) logits = Mul (input, w)"))
    assert graph_facts(made.SerializeToString()).computes_in == "float32"
    place(made)
    found = graph_facts(made.SerializeToString())
    assert (found.computes_in, found.precision, found.stepped) == ("float16", "fp16", False)


def test_a_mixed_int8_graph_is_int8_though_parts_are_in_float16():
    body = "h = Cast <to = 10> (input) f = Cast <to = 1> (h) q = QuantizeLinear (f, s) logits = DequantizeLinear (q, s)"
    found = graph_facts(model(body))
    assert (found.precision, found.computes_in) == ("int8", "float16")


def branch(operator, value):
    """A graph without inputs that reads a value from outside."""
    return helper.make_graph(
        [helper.make_node(operator, [value], ["inner"])], "b", [], [helper.make_tensor_value_info("inner", 1, ["B", 4])]
    )


def with_nodes(*nodes):
    value = helper.make_tensor_value_info
    made = helper.make_graph(nodes, "g", [value("input", 1, ["B", 4])], [value("logits", 1, ["B", 4])])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_steps_inside_branches_are_found():
    split = helper.make_node(
        "If", ["c"], ["logits"], then_branch=branch("Round", "input"), else_branch=branch("Neg", "input")
    )
    assert graph_facts(with_nodes(split)).staircases == ("Round",)
    neither = branch("Neg", "input")
    smooth = helper.make_node("If", ["c"], ["logits"], then_branch=neither, else_branch=neither)
    assert graph_facts(with_nodes(smooth)).staircases == ()
    chosen = helper.make_node("Greater", ["input", "t"], ["c"])
    assert graph_facts(with_nodes(chosen, smooth)).staircases == ("Greater",)


def test_steps_inside_loops_are_found():
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Floor", ["state"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", 7, []), value("go", 9, []), value("state", 1, ["B", 4])],
        [value("on", 9, []), value("next", 1, ["B", 4])],
    )
    loop = helper.make_node("Loop", ["n", "go_on", "input"], ["logits"], body=body)
    assert graph_facts(with_nodes(loop)).staircases == ("Floor",)


@pytest.mark.parametrize("last", ["rounds", "passes"])
def test_steps_inside_any_overload_of_a_function_are_found(last):
    made = onnx.load_model_from_string(model("a = own.f (input) logits = Tanh (a)"))
    made.ir_version = 10
    opsets = [helper.make_opsetid("", 18)]
    overloads = {
        "rounds": helper.make_function(
            "own", "f", ["x"], ["y"], [helper.make_node("Round", ["x"], ["y"])], opsets, overload="rounds"
        ),
        "passes": helper.make_function(
            "own", "f", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], opsets, overload="passes"
        ),
    }
    made.functions.extend(overloads[name] for name in sorted(overloads, key=lambda name: name == last))
    made.graph.node[0].overload = "rounds"
    onnx.checker.check_model(made)
    assert graph_facts(made.SerializeToString()).staircases == ("Round",)


@pytest.mark.parametrize("name", ["f", "Shape"])
def test_steps_inside_functions_are_found_whatever_those_are_called(name):
    functions = f'<domain: "own", opset_import: ["" : 18]> {name} (x) => (y) {{ a = Neg (x) y = Sign (a) }}'
    assert graph_facts(model(f"a = own.{name} (input) logits = Tanh (a)", functions=functions)).staircases == ("Sign",)
    unused = f'<domain: "own", opset_import: ["" : 18]> {name} (x) => (y) {{ y = Sign (x) }}'
    assert graph_facts(model("logits = Tanh (input)", functions=unused)).staircases == ()


def test_nodes_out_of_order_are_followed():
    made = onnx.load_from_string(model("a = Round (input) b = Neg (a) logits = Tanh (b)"))
    made.graph.node.insert(0, made.graph.node.pop(2))
    assert graph_facts(made.SerializeToString()).staircases == ("Round",)


def test_an_operator_written_twice_is_the_last_as_parsers_have_it():
    made = onnx.load_from_string(model("logits = Tanh (input)"))
    data = made.graph.node[0].SerializeToString()
    again = data + bytes([4 << 3 | 2, 5]) + b"Round"
    assert onnx.NodeProto.FromString(again).op_type == "Round"
    whole = made.SerializeToString()
    body = made.graph.SerializeToString()
    longer = body.replace(bytes([1 << 3 | 2, len(data)]) + data, bytes([1 << 3 | 2, len(again)]) + again)
    edited = whole.replace(bytes([7 << 3 | 2, len(body)]) + body, bytes([7 << 3 | 2, len(longer)]) + longer)
    assert graph_facts(edited).staircases == ("Round",)


@pytest.mark.parametrize("data", [b"text", b"\x3a\x7f", b"\x80" * 11])
def test_what_is_no_graph_is_refused(data):
    with pytest.raises(BadModel, match="no ONNX graph"):
        graph_facts(data)


def test_the_numbers_are_those_of_onnx_proto():
    for message, numbers in NUMBERS.items():
        fields = getattr(onnx, message).DESCRIPTOR.fields_by_name
        assert {name: fields[name].number for name in numbers} == numbers, message


def called(tmp_path, files, text, task, name):
    """Write a bundle whose one graph is `text`, under the name of a precision."""
    weight, bias, _, _ = task
    listed = {"evaluation.npz": files["evaluation.npz"], f"model.{name}.onnx": graph(text, weight, bias)}
    graphs = {name: Graph(forward=f"model.{name}.onnx", gradient=None, opset=18)}
    return write_bundle(tmp_path / "b", listed, n=60, graphs=graphs, ships=name)


GRAPHS = {"fp32": FORWARD, "fp16": HALVED, "int8": IN_BYTES}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("true", GRAPHS)
def test_a_graph_under_the_name_of_another_precision_is_refused_naming_both(tmp_path, files, task, name, true):
    path = called(tmp_path, files, GRAPHS[true], task, name)
    if name == true:
        assert open_bundle(path).manifest.ships == name
        return
    with pytest.raises(BadBundle, match=rf"model\.{name}\.onnx is called {name} .*: it is {true}") as caught:
        open_bundle(path)
    assert caught.value.hint


@pytest.mark.parametrize("keys", [("ships",), ("graphs", "int9")])
def test_a_precision_that_nobody_knows_is_refused(bundle, rewrite, keys):
    value = "int9" if keys == ("ships",) else {"forward": "model.fp32.onnx", "gradient": None, "opset": 18}
    rewrite(bundle, *keys, value=value)
    with pytest.raises(BadBundle, match="'int9' is none of fp32, fp16, int8"):
        open_bundle(bundle)


def test_a_bare_session_knows_what_its_graph_is_whatever_it_is_called(task):
    weight, bias, _, _ = task
    rounded = OrtSession(graph(ROUNDED, weight, bias), None, precision="fp32").card()
    assert rounded.facts.staircases == ("Round",)
    assert OrtSession(graph(IN_BYTES, weight, bias), None, precision="fp32").card().facts.quantised
    assert not OrtSession(graph(FORWARD, weight, bias), None, precision="int8").card().facts.stepped

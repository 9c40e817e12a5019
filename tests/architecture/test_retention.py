"""The benchmark of retention: formats, routes, the ratio with its interval, and the rule; on a small network."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import parser

from benchmarks.retention.__main__ import main, rows_of
from benchmarks.retention.__main__ import parser as main_parser
from benchmarks.retention.artifacts import FORMATS, Student
from benchmarks.retention.cells import ROUTES, SEEDS, Cell, Engine, attacked, settings, standing, union
from benchmarks.retention.figures import retained, rows, ruled
from benchmarks.retention.int4 import in_int4, stored_in_int4
from benchmarks.retention.page import pictures, table
from benchmarks.retention.record import Record
from export.graph.passes import prepare
from export.precision.candidate import Candidate
from pipeline.recipe.schema import load_recipe
from runtime.backends.ort import OrtSession
from runtime.bundle.opening import open_bundle
from runtime.errors import UsageFault
from runtime.files import sha256
from runtime.images.image_set import ImageSet
from runtime.spec import to_json
from runtime.suite.units import Target
from tests.paths import ROOT

NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[B, 2, 6, 6] input) => (float[B, 4] logits) <float[3, 2, 3, 3] c, float[4, 48] g, float[4] b> {
  hidden = Conv <pads = [0, 0, 0, 0]> (input, c)
  active = Relu(hidden)
  flat = Flatten(active)
  logits = Gemm <transB = 1> (flat, g, b)
}
"""


@pytest.fixture(scope="module")
def net():
    model, draw = parser.parse_model(NET), np.random.default_rng(3)
    del model.graph.initializer[:]
    for name, shape in (("c", (3, 2, 3, 3)), ("g", (4, 48)), ("b", (4,))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name))
    return prepare(model)


@pytest.fixture(scope="module")
def images(net):
    x = np.random.default_rng(4).random((24, 2, 6, 6)).astype(np.float32)
    return ImageSet("noise", x, net.logits(x).argmax(1), np.arange(24))


def cell(robust, route="own", clean=None):
    return Cell(
        sha256="0" * 64,
        gradient_sha256=None,
        route=route,
        eps=0.1,
        n=len(robust),
        clean=clean or "1" * len(robust),
        robust=robust,
        attacks=(),
        settings={},
        seed=0,
        backend="ort",
        provider="cpu",
        precision="fp32",
        seconds=0.0,
        device={},
        software={},
    )


def cells(whole, own, parent, none):
    left = {"own": own, "parent": parent, "none": none}
    first = FORMATS[0].name
    return {
        form.name: {route: cell(whole if form.name == first else left[route], route) for route in ROUTES}
        for form in FORMATS
    }


def test_weights_in_four_bits_are_fifteen_levels_a_channel(net):
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in in_int4(net).model.graph.initializer}
    exact = {t.name: onnx.numpy_helper.to_array(t) for t in net.model.graph.initializer}
    for name in ("c", "g"):
        integers, scale = stored[f"{name}/int4"], stored[f"{name}/scale"]
        assert np.abs(integers).max() == 7
        assert scale.shape == exact[name].shape[:1]
        steps = scale.reshape(-1, *[1] * (integers.ndim - 1))
        assert np.abs(integers * steps - exact[name]).max() <= 0.5001 * scale.max()
    assert "b" in stored


def test_onnx_runtime_answers_the_same_where_the_weights_take_four_bits(net, images):
    four = in_int4(net)
    packed = stored_in_int4(four)
    assert onnx.load_from_string(packed).opset_import[0].version == 21
    x = images.as_float(slice(None))
    with OrtSession(packed, None, precision="int8", threads=1) as session:
        np.testing.assert_allclose(session.logits(x), four.logits(x), rtol=1e-5, atol=1e-5)
    assert not np.allclose(four.logits(x), net.logits(x), rtol=1e-5, atol=1e-5)


def test_every_route_is_judged_by_the_artifact_and_its_attacks_are_recorded(net, images):
    four, parent = Candidate(in_int4(net)), Candidate(net)
    target = Target(four.session, images, 4, 64, lender=parent.session)
    found = {route: attacked(target, route, 0.05) for route in ROUTES}
    right = four.session.logits(images.as_float(slice(None))).argmax(1) == images.labels
    for route, each in found.items():
        np.testing.assert_array_equal(standing(each, "clean"), right)
        assert not (standing(each) & ~right).any()
        assert [row.name for row in each.attacks] == list(each.settings) == list(settings(route))
        assert {row.gradient for row in each.attacks} == {route}
        assert Cell.model_validate_json(each.model_dump_json()) == each
    assert standing(found["own"]).sum() < right.sum()
    four.close()
    parent.close()


def test_an_image_of_the_union_stands_every_route():
    found = cells("1111", "1101", "1110", "0111")
    np.testing.assert_array_equal(union(found, "int8 plain"), [False, True, False, False])


def test_the_ratio_is_of_the_same_images_and_its_interval_knows_that():
    whole = np.arange(400) < 200
    alike, other = np.arange(400) < 190, (np.arange(400) + 150) % 400 < 190
    for left in (alike, other):
        assert retained(left, whole)[0] == 0.95
    (close, wide) = (np.ptp(retained(left, whole)[1]) for left in (alike, other))
    assert close < 0.07 < wide
    assert retained(whole, whole) == (1.0, (1.0, 1.0))
    assert retained(alike, np.zeros(400, bool)) == (None, None)


def test_the_interval_of_the_ratio_holds_what_it_should():
    draw, held = np.random.default_rng(0), 0
    for _ in range(200):
        whole = draw.random(500) < 0.5
        left = np.where(draw.random(500) < 0.06, draw.random(500) < 0.3, whole)
        low, high = retained(left, whole)[1]
        held += low <= (0.94 * 0.5 + 0.06 * 0.3) / 0.5 <= high
    assert held >= 180


@pytest.mark.parametrize(("left", "free"), [(19, True), (18, False)])
def test_the_rule_calls_a_format_free_from_a_ratio_of_95_hundredths(left, free):
    robust = ("1" * left).ljust(20, "0")
    found = rows("student", cells("1" * 20, robust, robust, robust))
    assert found[0].ratio == 1
    sentences = ruled(found)
    assert sentences[0] == (
        f"fp16 {'is free' if free else 'is not free'}: the least union ratio is {left / 20:.3f} (student)."
    )
    assert not any("misjudges" in sentence for sentence in sentences)


def test_a_route_that_leaves_over_five_points_more_than_the_union_misjudges():
    own, parent = "1" * 16 + "0" * 4, "1" * 14 + "0" * 6
    sentences = ruled(rows("student", cells("1" * 20, own, parent, parent)))
    assert "misjudges fp16, int8 plain, int8 as it ships, int4 weights of student" in sentences[-1]
    assert not any("parent alone" in sentence for sentence in sentences)


def test_the_formats_that_one_route_misjudges_stand_in_one_sentence():
    own, parent = "1" * 16 + "0" * 4, "1" * 14 + "0" * 6
    found = cells("1" * 20, own, parent, parent)
    found["fp16"]["own"] = cell("1" * 18 + "00")
    (sentence,) = (each for each in ruled(rows("student", found)) if "misjudges" in each)
    assert sentence == (
        "Gradient own alone misjudges fp16, int8 plain, int8 as it ships, int4 weights of student: "
        "robust accuracy under it is 10.0 to 20.0 points above the union's."
    )


def test_five_points_are_not_more_than_five():
    left, union = "1" * 128 + "0" * 372, "1" * 103 + "0" * 397  # .256 - .206 is above .05 in float64
    assert not any("misjudges" in sentence for sentence in ruled(rows("student", cells("1" * 500, left, union, union))))


def test_the_table_has_a_line_for_each_artifact_and_the_pictures_name_every_format():
    found = rows("student", cells("1" * 20, "1" * 18 + "00", "1" * 20, "1" * 20))
    lines = table(found).splitlines()
    assert len(lines) == 2 + len(FORMATS)
    assert lines[3].startswith("| student | 0.1 | fp16 | 100.0 | 90.0 | 100.0 | 100.0 | 90.0 (69.9 to 97.2) | 0.900 (")
    drawn = pictures(found)
    for form in FORMATS[1:]:
        assert form.name in drawn["retention-ratio.svg"].decode()
    assert pictures(found) == drawn


@pytest.mark.parametrize(("text", "eps"), [("runs/a", None), ("runs/a@1", 1 / 255), ("runs/a@0.5", 0.5 / 255)])
def test_a_student_is_a_run_and_perhaps_a_radius(text, eps):
    student = Student.parse(text)
    assert (str(student.run), student.eps) == ("runs/a", eps)


def test_one_command_goes_from_a_run_to_the_table_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "tests" / "data" / "stored-0.1")
    command = ["trained", "--out", str(tmp_path), "--n", "16"]
    main([*command, "--formats", "int8 plain"])
    assert not (tmp_path / "trained" / "mixed").exists()
    main(command)
    (measured,) = Record.model_validate_json((tmp_path / "ort" / "retention.json").read_bytes()).students
    assert standing(measured.cells["fp32"]["own"], "clean").any()
    assert set(measured.cells) == {form.name for form in FORMATS}
    assert {route: each.seed for route, each in measured.cells["fp32"].items()} == SEEDS
    for form in FORMATS:
        digest = sha256((tmp_path / "trained" / form.bundle / f"model.{form.precision}.onnx").read_bytes())
        assert {cell.sha256 for cell in measured.cells[form.name].values()} == {digest}
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "trained").rglob("*.onnx")}
    (left, *others) = (tmp_path / "trained" / "cells").iterdir()
    written |= {path: path.stat().st_mtime_ns for path in others}
    first = left.read_bytes()
    left.unlink()
    main(command)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    again, before = (Cell.model_validate_json(data) for data in (left.read_bytes(), first))
    assert again.robust == before.robust
    with pytest.raises(UsageFault, match="another"):
        main([*command[:-1], "12"])
    for name, other in {
        "gradient_sha256": "0" * 64,
        "data_sha256": "0" * 64,
        "lender": "another",
        "seed": 9,
        "n": 15,
    }.items():
        left.write_bytes(to_json(again.model_copy(update={name: other})))
        with pytest.raises(UsageFault, match=f"is of another {name}"):
            main(command)
    left.write_bytes(to_json(again.model_copy(update={"data_sha256": None})))
    main(command)
    shutil.copytree("trained", tmp_path / "again")
    with pytest.raises(UsageFault, match="two students are called"):
        main(["trained", str(tmp_path / "again"), *command[1:], "--formats", "int8 plain"])


def test_another_engine_judges_the_same_bundles_and_the_record_says_what_lent_the_gradient(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.chdir(ROOT / "tests" / "data" / "stored-0.1")
    main(["trained", "--out", str(tmp_path), "--n", "16", "--formats", "int8 plain", "--backend", "openvino"])
    (measured,) = Record.model_validate_json((tmp_path / "openvino" / "retention.json").read_bytes()).students
    found = [cell for routes in measured.cells.values() for cell in routes.values()]
    assert {cell.backend for cell in found} == {"openvino"}
    bundle = open_bundle(tmp_path / "trained" / "plain")
    for form in FORMATS[:1] + FORMATS[2:3]:
        with Engine("openvino", "cpu").open(bundle, form) as session:
            own = session.card().gradient_backend or session.card().backend
        parent = measured.cells["fp32"]["own"].lender
        lenders = {route: cell.lender for route, cell in measured.cells[form.name].items()}
        assert lenders == {"own": own, "parent": parent, "none": None}
    assert "openvino" in found[0].software


def test_where_fp32_leaves_nothing_no_format_is_called_free():
    found = rows("student", cells("0000", "0000", "0000", "0000"))
    assert {row.ratio for row in found} == {None}
    assert all("leaves nothing" in sentence for sentence in ruled(found))
    assert pictures(found)


def test_formats_can_be_left_for_later():
    chosen = main_parser().parse_args(["run", "--out", "x", "--formats", "int8 plain"]).formats
    assert [form.name for form in chosen] == ["fp32", "int8 plain"]
    whole = cells("1111", "1110", "1111", "1111")
    found = rows("student", {form.name: whole[form.name] for form in chosen})
    assert [row.form for row in found] == ["fp32", "int8 plain"]
    assert {sentence.split(" is ")[0] for sentence in ruled(found) if "free" in sentence} == {"int8 plain"}
    with pytest.raises(SystemExit):
        main_parser().parse_args(["run", "--out", "x", "--formats", "int3"])


def test_the_recipes_beside_the_benchmark_make_the_students_of_the_table():
    record = Record.model_validate_json((ROOT / "benchmarks" / "results" / "retention.json").read_bytes())
    recipes = [load_recipe(str(path)) for path in (ROOT / "benchmarks/retention/students").glob("*.toml")]
    assert sorted(
        (made.student.arch, made.student.width, made.search.steps > 0, made.train.epochs) for made in recipes
    ) == sorted(
        (each.card.arch, each.card.width, each.card.trained != "clean", each.card.epochs) for each in record.students
    )


@pytest.mark.parametrize("name", ["retention", "retention-openvino"])
def test_the_page_shows_what_is_on_record(name):
    record = Record.model_validate_json((ROOT / f"benchmarks/results/{name}.json").read_bytes())
    page, found = (ROOT / "docs" / "results" / "retention.md").read_text(), rows_of(record)
    assert table(found) in page
    assert all(f"- {sentence}\n" in page for sentence in ruled(found))


def test_the_pictures_of_the_page_are_of_what_is_on_record():
    record = Record.model_validate_json((ROOT / "benchmarks/results/retention.json").read_bytes())
    page = (ROOT / "docs" / "results" / "retention.md").read_text()
    for name, picture in pictures(rows_of(record)).items():
        assert f"]({name})" in page
        assert (ROOT / "docs" / "results" / name).read_bytes().count(b"<path") == picture.count(b"<path")

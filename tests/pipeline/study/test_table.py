"""The table: statistics over seeds, ties, missing columns, published figures, escaping, pictures."""

import csv
import io
import re
import struct
from math import sqrt

import pytest

from pipeline.models.checkpoint import Figures
from pipeline.runs.directory import Summary
from pipeline.study.estimate import Estimate, difference
from pipeline.study.plan import load_study
from pipeline.study.plots import pictures, robust_column
from pipeline.study.publish import page
from pipeline.study.published import published
from pipeline.study.results import CellResult, Judged, gather
from pipeline.study.table import build_table, by_reason, compared, to_csv, to_markdown
from runtime.records.report import Accuracy
from runtime.spec import DataRecord


def cell(method, seed, *, student="resnet18", radius=8, aa=None, precision="fp32", **accuracies):
    """A cell judged on 500 images by the attacks named, and by aa on 50 where given."""

    def judged(n, clean, attacks):
        rows = {name: Accuracy(value=value, ci95=(0, 1)) for name, value in attacks.items()}
        return Judged(n=n, clean=Accuracy(value=clean, ci95=(0, 1)), attacks=rows, seconds=60, device="EPYC")

    clean = accuracies.pop("clean", 0.8)
    figures = Figures(epoch=1, n=10, clean=0.8, pgd=0.7)
    return CellResult(
        cell=f"{student}-{method}-{radius}-seed{seed}", method=method, student=student, search_eps=radius / 255,
        threat_eps=8 / 255, seed=seed, checkpoint="best",
        training=Summary(
            name="n", method=method, seed=seed, best=figures, last=figures, steps=2, seconds=60, images_per_second=1,
            precision=precision, device="cpu", threads=1, teacher_sha256=None,
            training_data=DataRecord(name="d", n=1, sha256="0" * 64), software={"torch": "2.14"},
        ),
        evaluations={"gradient": judged(500, clean, accuracies)}
        | ({"aa": judged(50, 0.5, {"aa": aa})} if aa is not None else {}),
    )  # fmt: skip


CELLS = [
    cell("adaad", 0, fgsm=0.70, pgd=0.68, aa=0.6),
    cell("adaad", 1, fgsm=0.72, pgd=0.70, aa=0.62),
    cell("adaad", 2, fgsm=0.74, pgd=0.72, aa=0.64),
    cell("rslad", 0, fgsm=0.71, pgd=0.60),
    cell("rslad", 1, fgsm=0.73, pgd=0.61),
    cell("iad", 0, fgsm=0.72, pgd=0.9),
    cell("adaad", 0, student="mobilenet_v2", pgd=0.5),
]


@pytest.fixture
def study():
    return load_study("two-core")


def test_mean_and_spread_are_those_of_the_seeds():
    estimate = Estimate((0.1, 0.2, 0.6), 100)
    assert (estimate.n, estimate.mean) == (3, pytest.approx(0.3))
    assert estimate.spread == pytest.approx(sqrt((0.04 + 0.01 + 0.09) / 2))
    assert Estimate((0.4,), 100).spread is None


def test_a_difference_is_a_tie_just_under_two_standard_errors_and_none_just_over():
    this = Estimate((0.49, 0.51), 100)  # standard error sqrt(0.0002 / 2) = 0.01, of two such sqrt(2) of that
    for shift, tie in ((0.0282, True), (0.0284, False)):
        found = difference(this, Estimate((0.49 + shift, 0.51 + shift), 100))
        assert found.error == pytest.approx(0.01 * sqrt(2))
        assert found.value == pytest.approx(-shift)
        assert found.tie is tie


@pytest.mark.parametrize(("broken", "tie"), [(0, True), (1, True), (2, False)])
def test_seeds_that_agree_to_the_image_do_not_make_one_image_a_difference(broken, tie):
    this, that = Estimate((0.5, 0.5, 0.5), 500), Estimate((0.5 - broken / 500,) * 3, 500)
    assert difference(this, that).error == pytest.approx(1 / 1000)
    assert difference(this, that).tie is difference(that, this).tie is tie


def test_of_two_numbers_of_images_the_smaller_one_is_the_grain_of_a_difference():
    fine, coarse = Estimate((0.52, 0.52), 500), Estimate((0.5, 0.5), 50)
    assert difference(fine, coarse).error == difference(coarse, fine).error == pytest.approx(1 / 100)
    assert difference(fine, coarse).tie


def test_one_seed_allows_no_claim():
    one, two = Estimate((0.9,), 100), Estimate((0.1, 0.1), 100)
    for this, that in ((one, two), (two, one), (one, one)):
        assert difference(this, that).error is None
        assert not difference(this, that).tie
        assert compared(this, that) == "n = 1"


def test_the_table_gives_mean_spread_and_seeds_and_says_what_was_not_measured(study):
    table = build_table(study, CELLS, {})
    assert table.heading[:3] == ("student", "method", "seeds")
    measured = ("clean", "fgsm", "pgd", "aa")
    assert table.heading[3:7] == tuple(f"{name} (n = {50 if name == 'aa' else 500})" for name in measured)
    rows = {row[:2]: row[2:7] for row in table.rows}
    assert rows["resnet18", "adaad"] == ("3", "80.0 ± 0.0", "72.0 ± 2.0", "70.0 ± 2.0", "62.0 ± 2.0")
    assert rows["resnet18", "iad"] == ("1", "80.0", "72.0", "90.0", "–")
    assert rows["mobilenet_v2", "adaad"] == ("1", "80.0", "–", "50.0", "–")
    assert {len(row) for row in table.rows} == {len(table.heading)}


def test_of_two_evaluations_the_one_on_more_images_gives_the_clean_accuracy():
    (group, *_) = gather(CELLS)
    assert (group.estimates["clean"].mean, group.estimates["clean"].images) == (pytest.approx(0.8), 500)
    assert group.estimates["aa"].images == 50


def test_differences_are_to_the_reference_of_the_same_student(study):
    rows = {row[:2]: row[2:] for row in build_table(study, CELLS, {}).difference_rows}
    assert set(rows) == {("resnet18", "rslad"), ("resnet18", "iad")}
    # 60.5 less 70.0: standard error sqrt(0.02^2 / 3 + 0.00005 / 2) = 0.01258
    assert rows["resnet18", "rslad"] == ("tie", "tie", "−9.5 (2 SE 2.5)", "–")
    assert rows["resnet18", "iad"] == ("n = 1", "n = 1", "n = 1", "–")


def test_several_radii_are_told_apart_and_compared_with_the_first(study):
    cells = [cell("adaad", seed, radius=radius, pgd=0.5 + radius / 100 + seed / 1000)
             for radius in (8, 16) for seed in (0, 1)]  # fmt: skip
    table = build_table(study, cells, {})
    assert [row[2] for row in table.rows] == ["8/255", "16/255"]
    assert [row[:3] for row in table.difference_rows] == [("resnet18", "adaad", "16/255")]
    assert table.difference_rows[0][4].startswith("+8.0 (2 SE ")


def test_where_the_first_radius_is_missing_nothing_is_compared(study):
    swept = study.model_copy(update={"radii": (8 / 255, 16 / 255), "step": 0.25})
    cells = [cell("adaad", seed, radius=16, pgd=0.5) for seed in (0, 1)] + [cell("rslad", 0, radius=8, pgd=0.5)]
    assert build_table(swept, cells, {}).difference_rows == ()


def test_published_figures_stand_beside_under_their_own_names(study):
    table = build_table(study, CELLS, {})
    assert table.heading[7:] == tuple(f"published {name}" for name in ("clean", "fgsm", "pgd", "cw-l2", "aa"))
    assert table.rows[0][7:] == ("85.58", "60.85", "56.40", "80.83", "51.37")
    assert any("CVPR 2023" in note for note in table.notes)


def test_the_published_table_is_whole():
    table = published()["cifar10-wrn34-20"]
    assert {student: len(rows) for student, rows in table.rows.items()} == {"resnet18": 8, "mobilenet_v2": 8}
    assert table.figures("mobilenet_v2", "adaiad")["aa"] == 49.29
    assert table.figures("resnet18", "nowhere") == {}


def test_the_notes_say_precision_machine_images_sources_and_what_is_missing(study):
    notes = " ".join(build_table(study, [*CELLS, cell("ard", 0, precision="bf16", pgd=0.1)], {"x": "failed: Y"}).notes)
    for text in ("clean 500", "aa 50", "bf16 (resnet18)", "EPYC", "PyTorch 2.14", "our reading", "x: failed: Y"):
        assert (text in notes) is (text != "our reading")


def test_what_a_verdict_would_not_believe_is_in_the_notes(study):
    (good, other) = (cell("adaad", seed, pgd=0.5) for seed in (0, 1))
    judged = good.evaluations["gradient"].model_copy(update={"doubts": ("gradients are masked",)})
    doubtful = good.model_copy(update={"evaluations": {"gradient": judged}})
    notes = build_table(study, [doubtful, other], {}).notes
    assert [note for note in notes if "In doubt" in note] == [
        "In doubt: resnet18-adaad-8-seed0, gradient: gradients are masked."
    ]


def test_a_study_of_which_nothing_ran_has_a_table_too(study):
    table = build_table(study, [], {"a": "failed: b"})
    assert table.rows == table.difference_rows == ()
    assert to_markdown(table, ()).startswith("# ")
    assert "failed: b" in page(table, ())


def test_csv_has_a_line_a_row_and_column(study):
    lines = list(csv.DictReader(io.StringIO(to_csv(study, CELLS))))
    assert len(lines) == 4 + 3 + 3 + 2
    line = next(line for line in lines if (line["method"], line["column"]) == ("rslad", "pgd"))
    assert float(line["mean"]) == pytest.approx(0.605)
    assert float(line["spread"]) == pytest.approx(0.01 / sqrt(2), abs=1e-6)
    assert (line["seeds"], line["images"], line["published_percent"]) == ("2", "500", "53.46")


def test_a_figure_of_fewer_seeds_than_its_row_says_so(study):
    cells = [cell("adaad", 0, pgd=0.5, aa=0.4), cell("adaad", 1, pgd=0.5)]
    (row,) = build_table(study, cells, {}).rows
    assert row[2:6] == ("2", "80.0 ± 0.0", "50.0 ± 0.0", "40.0 (1 of 2 seeds)")


def test_columns_on_the_same_images_need_no_numbers(study):
    assert build_table(study, [cell("adaad", 0, pgd=0.5)], {}).heading[3:5] == ("clean", "pgd")


def test_cells_that_one_reason_keeps_from_being_finished_share_a_line():
    assert by_reason({"a": "waits", "b": "failed: x", "c": "waits"}) == ["a, c: waits", "b: failed: x"]


def test_text_of_a_user_is_escaped_in_the_page_and_in_markdown(study):
    wild = study.model_copy(update={"title": "<script>alert(1)</script> | `x`"})
    table = build_table(wild, CELLS, {"<b>": "failed: a\nb"})
    html, markdown = page(table, ()), to_markdown(table, ())
    assert "<script>" not in html
    assert "<b>" not in html
    assert "\\<script\\>alert(1)\\</script\\> &#124; \\`x\\`" in markdown
    assert "failed: a b" in markdown
    assert "://" not in html.replace("http://www.w3.org", "")


def test_pictures_are_drawn_of_what_was_measured(study):
    groups = gather(CELLS)
    assert robust_column(groups) == "pgd"
    (accuracy,) = pictures(groups)
    assert struct.unpack(">II", accuracy.png[16:24]) == (880, 495)
    assert accuracy.svg.startswith("<svg")
    assert "accuracy under pgd" in accuracy.svg
    assert "currentColor" in accuracy.svg, "texts follow the page's light or dark"
    assert not re.search("(fill|stroke): #(000|010203|fff)", accuracy.svg)
    assert pictures(gather([cell("adaad", 0)])) == ()
    both = pictures(gather([cell("adaad", 0, pgd=0.5), cell("adaad", 0, radius=16, pgd=0.6)]))
    assert [picture.name for picture in both] == ["accuracy", "radius"]

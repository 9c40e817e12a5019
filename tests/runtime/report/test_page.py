"""report.html as a file: what is on it, that nothing comes from elsewhere, that no text is taken for markup."""

import base64
import io
import math
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from runtime.errors import BadRun
from runtime.gallery.store import read_gallery
from runtime.records.bench import Bench
from runtime.records.report import Report, load_report
from runtime.report import page, tiles
from runtime.report.account import Account, read_account
from runtime.report.phrases import accuracy_rows
from runtime.report.tiles import data_url
from runtime.words import percent
from tests.command_line import edgeproof
from tests.runtime.report.conftest import HOSTILE
from tests.runtime.report.pages import BENCH, QUESTIONS, SECTIONS, Tags


@pytest.fixture(scope="session")
def full(made):
    """An account in which there is something for every section."""
    account = read_account(made / "run", [made / "other", made / "farther"])
    return Account(account.report, account.gallery, account.others, Bench.model_validate(BENCH))


@pytest.fixture(scope="session")
def html(full):
    return page.render(full)


def test_the_answers_come_first_then_every_section_in_order(html, full):
    found = Tags(html)
    assert found.headings == [*QUESTIONS, *SECTIONS.values()]
    places = [html.index(f'<section id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    text = found.text
    assert text.index("Yes: it passed") < text.index(full.report.reasons[0][1:]) < text.index("Accuracy under attack")


def test_sections_without_anything_to_say_are_left_out(made):
    report = load_report(made / "run").model_dump(by_alias=True)
    bare = {**report, "attacks": [], "robust_accuracy": None, "eps_curve": [], "paired": None, "checks": []}
    bare |= {"gate": {"fail_under": None, "max_drop": None}, "reasons": ["no gate: nothing to pass or fail"]}
    found = Tags(page.render(Account(Report.model_validate(bare))))
    assert found.headings[len(QUESTIONS) :] == [
        "Accuracy under attack", "By class", "What this run does not show", "Machine and artifact", "How to repeat it",
        "Words on this page",
    ]  # fmt: skip


def test_the_page_is_well_formed_and_no_id_is_there_twice(html):
    found = Tags(html)
    assert found.faults == []
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))


def test_nothing_on_the_page_comes_from_elsewhere(html):
    found = Tags(html)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    shown = re.sub(r'"data:[^"]*"', "", html)
    assert "//" not in shown
    assert "@import" not in shown
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", shown))
    assert not re.search(r"<(script|link|iframe|object|form)\b|\son\w+=", shown)
    assert "default-src 'none'" in html


def test_options_are_not_broken_at_the_end_of_a_line_and_stay_text():
    said = page.unbroken("name a set (--data <b>SET</b>), or leave out --no-gate")
    assert said == (
        'name a set (<span class="word">--data</span> &lt;b&gt;SET&lt;/b&gt;), or leave out '
        '<span class="word">--no-gate</span>'
    )


def test_texts_are_shown_and_never_taken_for_markup(html, full):
    text = Tags(html).text
    assert "<script" not in html
    for name in HOSTILE:
        assert name in text
    report = full.report.model_dump(by_alias=True)
    wild = "</style><img src=x onerror=alert(1)>{{ 7 * 7 }}"
    report["data"]["name"] = report["device"]["cpu"] = wild
    report["request"]["command"] = shlex.join(["edgeproof", wild])
    report["reasons"] = [wild]
    report["checks"] = [{**check, "state": "found", "message": wild} for check in report["checks"]]
    report["warnings"] = [{"check": "a", "blocking": True, "message": wild, "hint": wild}]
    changed = page.render(Account(Report.model_validate(report), full.gallery, full.others, full.bench))
    assert "<img src=x" not in changed
    assert Tags(changed).faults == []
    assert Tags(changed).text.count(wild) > 15


def test_every_figure_of_the_report_is_on_the_page(html, full):
    text, report = Tags(html).text, full.report
    for row in report.attacks:
        assert percent(row.accuracy) in text
    for row in report.per_class:
        assert percent(row.robust) in text
    for digest in (report.artifact.sha256, report.request_sha256, report.data.sha256, report.request.gradient_sha256):
        assert digest in text
    for check in report.checks:
        assert check.message in text
        assert (check.hint in text) == (check.state == "found"), "who did nothing wrong is told nothing"
    assert report.request.command in re.sub(r"\s+", " ", text)
    assert "not paired: the threat models are linf, eps " in text
    assert re.search(r"\)\s*on 60 images", text)
    assert "power.draw is not measured here" in text


def test_latency_of_another_artifact_is_not_taken_for_this_ones(full):
    assert "No row is the artifact of this report: they are of tiny" in Tags(page.render(full)).text
    own = full.report.artifact.sha256
    runs = tuple(run.model_copy(update={"sha256": own}) if run.precision == "fp32" else run for run in full.bench.runs)
    bench = full.bench.model_copy(update={"runs": runs})
    text = Tags(page.render(Account(full.report, full.gallery, full.others, bench))).text
    assert "Bold marks the artifact of this report" in text
    assert "No row is" not in text


MARK = re.compile(r'<i class="(\w+)" style="--from: ([\d.]+); --to: ([\d.]+); color: var\(--(\w+)\)"></i>')


def marks(html, section):
    """Return (kind, from, to, colour) of what the charts of a section draw; all of it lies on them."""
    inside = re.search(f'<section id="{section}".*?</section>', html, re.DOTALL)[0]
    found = [(kind, float(start), float(end), colour) for kind, start, end, colour in MARK.findall(inside)]
    assert len(found) == inside.count("<i ")
    assert all(0 <= start <= 1 and 0 <= end <= 1 for _, start, end, _ in found)
    return found


def test_accuracies_are_drawn_as_long_as_they_are_with_their_intervals_and_the_gate(html, full):
    drawn, rows = marks(html, "accuracy"), accuracy_rows(full.report)
    bars = [(end, colour) for kind, _, end, colour in drawn if kind == "bar"]
    assert bars == [
        (pytest.approx(row.accuracy, abs=1e-4), {"clean": "clean", "worst case": "robust"}.get(row.name, "tint"))
        for row in rows
    ]
    lines = [(start, end) for kind, start, end, _ in drawn if kind == "line"]
    assert lines == [pytest.approx(row.ends, abs=1e-4) for row in rows]
    assert [start for kind, start, _, _ in drawn if kind == "gate"] == [0.01] * len(rows)


def test_what_else_is_drawn_has_its_place_in_its_row(html, full):
    discs = [start for kind, start, _, colour in marks(html, "classes") if (kind, colour) == ("disc", "clean")]
    assert discs == [pytest.approx(row.clean, abs=1e-4) for row in full.report.per_class]
    lengths = [end for _, _, end, _ in marks(html, "cost")]
    longest = max(row.seconds for row in full.report.attacks)
    assert lengths == [pytest.approx(row.seconds / longest, abs=1e-4) for row in full.report.attacks]
    places = {kind: start for kind, start, _, _ in marks(html, "latency")}
    assert (places["disc"], places["diamond"]) == (0.03, 0.97)
    assert places["square"] == pytest.approx(0.03 + 0.94 * math.log(1.5) / math.log(3), abs=1e-4)
    ends = [place for _, start, end, _ in marks(html, "comparison")[::2] for place in (start, end)]
    assert (min(ends), max(ends)) == (0.03, 0.97)
    (curve,) = re.findall(r'<svg class="curve".*?</svg>', html, re.DOTALL)
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', curve)]
    assert heights == [pytest.approx(190 - 180 * point.accuracy, abs=0.06) for point in full.report.eps_curve]


def test_values_that_are_equal_or_none_have_a_place_too():
    assert page.scale([])(1.0) == page.scale([2.0, 2.0])(2.0) == 0.5
    assert page.scale([0.0, 1.0], by_factors=True)(0.0) == 0.03


def test_heat_is_shown_in_the_colours_of_cividis():
    from matplotlib import colormaps

    values = np.linspace(0, 1, 256)
    ours = tiles._heat(values[None])[:, 0].T.astype(float)
    assert np.abs(ours - 255 * colormaps["cividis"](values)[:, :3]).max() < 6


def test_pictures_of_the_gallery_are_those_of_the_file(html, made):
    gallery = read_gallery(made / "run")
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="image', html)
    ]
    np.testing.assert_array_equal(np.stack(pixels), gallery.image[:, 0])
    coloured = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data_url(coloured).partition(",")[2]))))
    np.testing.assert_array_equal(shown, coloured.transpose(1, 2, 0))
    assert data_url(np.zeros((2, 4, 4), np.uint8)).startswith("data:image/png")


def test_of_many_classes_the_least_robust_are_drawn_and_all_are_listed(full):
    report = full.report.model_dump(by_alias=True)
    classes = 100
    report["per_class"] = [
        {"label": label, "name": f"class {label}", "n": 5, "clean": 0.9, "robust": label / classes}
        for label in range(classes)
    ]
    confusion = np.eye(classes, dtype=int) * 4
    confusion[7, 8] = 1
    report["confusion"] = confusion.tolist()
    text = Tags(page.render(Account(Report.model_validate(report)))).text
    assert "The chart shows the 20 least robust of 100 classes." in text
    assert "class 99" in text
    assert text.index("class 7", text.index("taken for")) < text.index("class 8", text.index("taken for"))


def test_bench_json_in_the_run_directory_is_on_the_page(run):
    (run / "bench.json").write_text(Bench.model_validate(BENCH).model_dump_json(by_alias=True))
    assert edgeproof("report", run).exit_code == 0
    assert '<section id="latency"' in (run / "report.html").read_text()
    (run / "bench.json").write_text('{"schema": "edgeproof.bench/9"}')
    result = edgeproof("report", run)
    assert result.exit_code == 3
    assert "bench.json" in result.stderr


@pytest.mark.parametrize(("name", "value"), [("index", 999), ("label", 2), ("broken_by", 7), ("clean_prediction", -1)])
def test_a_gallery_of_another_run_is_bad_input(run, name, value):
    with np.load(run / "gallery.npz") as file:
        arrays = dict(file)
    arrays[name] = np.full_like(arrays[name], value)
    np.savez(run / "gallery.npz", **arrays)
    with pytest.raises(BadRun, match="belongs to another run"):
        read_account(run)

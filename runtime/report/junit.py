"""junit.xml: the verdict as a suite of test cases, which CI systems show.

It is valid by the two schemas in use, Ant's and Jenkins's. A case is a gate, a check or an attack. A failed gate is a
failure; what leaves the verdict open is an error; what did not run is skipped. So the suite has a failure if the
verdict is `failed`, and an error but no failure if it is `inconclusive`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, NamedTuple

from runtime.report.markdown import plain
from runtime.report.phrases import accuracy_rows, attack_names, gate_words, verdict_of
from runtime.spec import Gate
from runtime.statistics import NOTHING
from runtime.verdict.figures import decide_verdict, hidden_in
from runtime.words import interval, percent, radius

if TYPE_CHECKING:
    from runtime.records.report import CheckResult, Report
    from runtime.report.account import Account

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that are not allowed in XML, not even as references."""
OUTCOME = {"passed": "", "failed": "failure", "inconclusive": "error"}
"""The element inside a gate's case, by the gate's verdict; none if it passed."""


class TestCase(NamedTuple):
    """A test case. `outcome` is the name of the element inside it, '' if it passed."""

    kind: str
    name: str
    seconds: float = 0.0
    outcome: str = ""
    message: str = ""
    hint: str = ""


def render(account: Account) -> str:
    """Return the document."""
    report = account.report
    cases, artifact = suite_cases(report), report.artifact
    counts = {f"{what}s": str(_count(cases, what)) for what in ("failure", "error")}
    document = ET.Element("testsuites")
    suite = ET.SubElement(
        document,
        "testsuite",
        counts,
        name=f"edgeproof {artifact.name} {artifact.precision}",
        package="edgeproof",
        id="0",
        timestamp=report.started.removesuffix("Z"),
        hostname="localhost",  # reports are passed on, so the host's name is left out
        tests=str(len(cases)),
        skipped=str(_count(cases, "skipped")),
        time=f"{report.seconds:.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report).items():
        ET.SubElement(properties, "property", name=name, value=value)
    for case in cases:
        suite.append(_element(case, f"edgeproof.{artifact.name}.{artifact.precision}"))
    ET.SubElement(suite, "system-out").text = plain(account)
    ET.SubElement(suite, "system-err").text = "\n".join(f"{each.message}: {each.hint}" for each in report.warnings)
    for element in document.iter():
        element.text = element.text and NOT_XML.sub("\ufffd", element.text)
        element.attrib.update({name: NOT_XML.sub("\ufffd", value) for name, value in element.attrib.items()})
    ET.indent(document)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(document, encoding="unicode") + "\n"


def suite_cases(report: Report) -> list[TestCase]:
    """Return the cases: gates, checks and attacks."""
    rows = zip(attack_names(report), report.attacks, strict=True)
    attacks = [TestCase("attack", name, seconds=row.seconds) for name, row in rows]
    return [*gate_cases(report), *map(_check_case, report.checks), *attacks]


def gate_cases(report: Report) -> list[TestCase]:
    """Return a case for each gate, judged alone by the rules of the verdict."""
    gates = [Gate(**{name: value}) for name, value in report.gate if value is not None]
    if not gates:
        blocked = report.verdict == "inconclusive"
        return [TestCase("gate", "none", outcome="error" if blocked else "skipped", message=report.reasons[0])]
    attacks = [row.label for row in report.attacks]
    hidden = hidden_in(report.robust_accuracy, attacks, report.blind_control, report.gradient_test)
    cases = []
    for gate in gates:
        asked = report.request.model_copy(update={"gate": gate})
        decision = decide_verdict(
            asked,
            report.robust_accuracy,
            report.paired,
            report.warnings,
            hidden=NOTHING if report.verdict == "passed" else hidden,  # as earlier versions passed it
        )
        cases.append(
            TestCase("gate", gate_words(gate), outcome=OUTCOME[decision.verdict], message="; ".join(decision.reasons))
        )
    return cases


def _check_case(check: CheckResult) -> TestCase:
    outcome = "skipped" if check.state == "not run" else "error" if check.state == "found" and check.blocking else ""
    return TestCase("check", check.check, outcome=outcome, message=check.message, hint=check.hint)


def _count(cases: list[TestCase], outcome: str) -> int:
    return sum(case.outcome == outcome for case in cases)


def _element(case: TestCase, suite: str) -> ET.Element:
    element = ET.Element("testcase", name=case.name, classname=f"{suite}.{case.kind}", time=f"{case.seconds:.3f}")
    if case.outcome:
        inside = ET.SubElement(element, case.outcome, message=case.message, type=case.kind)
        inside.text = case.hint if case.outcome != "skipped" else None
    return element


def _properties(report: Report) -> dict[str, str]:
    figures = {
        f"accuracy {row.name}": f"{percent(row.accuracy)} ({interval(row.ends)})" for row in accuracy_rows(report)
    }
    artifact = report.artifact
    return {
        "verdict": verdict_of(report),
        "eps": radius(report.threat_model.eps),
        "images": f"{report.data.n} of {report.data.name}",
        **figures,
        "artifact": artifact.sha256,
        "request": report.request_sha256,
        "backend": artifact.engines,
        **dict(sorted(report.software.items())),
    }

"""What a cell's figures are read from: reports as `verify` writes them."""

import json
from dataclasses import replace

from pipeline.study.results import figures_of
from runtime.attacks import ATTACKS
from runtime.records.report import Report
from tests.command_line import edgeproof
from tests.paths import TINY


def test_an_attack_beside_a_cascade_that_runs_it_too_keeps_its_own_figure(tmp_path, monkeypatch):
    few = {**ATTACKS["square"].defaults, "queries": 2}
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults=few))
    result = edgeproof("verify", TINY, "--attacks", "square,aa", "--no-gate", "--json", "--out", tmp_path / "run")
    report = Report.model_validate(json.loads(result.stdout))
    own, stage = (row.accuracy for row in report.attacks if row.name == "square")
    assert own > stage, "the stage attacks what others left"

    figures = figures_of(report)

    assert figures.attacks["square"].value == own
    assert figures.attacks["aa"].value == next(row.accuracy for row in report.attacks if row.name == "aa")

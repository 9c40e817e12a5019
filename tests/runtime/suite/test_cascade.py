"""AutoAttack is one name and several rows: each stage on what the earlier ones left."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.attacks import ATTACKS
from runtime.records.report import load_report
from tests.command_line import edgeproof

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def few_queries(monkeypatch):
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 100, "p": 0.8}))


@pytest.mark.usefixtures("few_queries")
def test_autoattack_is_asked_for_by_name_and_the_request_says_what_it_ran(bundle):
    outputs = []
    for batch in (5, 64):
        options = ["--attacks", "pgd,aa", "--n", 30, "--batch", batch, "--save-adversarial", "--out", f"run{batch}"]
        result = edgeproof("verify", bundle, *options)
        assert result.exit_code == 0, result.stderr
        outputs.append((Path(f"run{batch}") / "evidence.npz").read_bytes())
    assert outputs[0] == outputs[1]
    read = load_report(Path("run64"))
    assert [row.name for row in read.attacks] == ["pgd", "apgd-ce", "apgd-dlr", "fab-t", "square", "aa"]
    assert [row.cascade for row in read.attacks] == [False, True, True, True, True, False]
    assert [row.gradient for row in read.attacks] == ["own"] * 4 + ["none", "own"]
    asked = {request.name: request.settings for request in read.request.attacks}
    assert set(asked) == {"pgd", "aa"}
    assert asked["aa"]["fab-t.targets"] == 2
    assert asked["aa"]["square.queries"] == 100
    assert read.robust_accuracy.value <= read.attacks[-1].accuracy


@pytest.mark.usefixtures("few_queries")
def test_a_stage_of_a_cascade_is_told_from_the_same_attack_on_all_images(bundle):
    options = ["--attacks", "square,aa", "--n", 10, "--out", "run"]
    out = edgeproof("verify", bundle, *options).stdout
    rows = [name for name in ("square ", "aa: fab-t ", "aa: square ", "aa ") if f"\n{name} " in out]
    assert rows == ["square ", "aa: fab-t ", "aa: square ", "aa "]
    junit = Path("run/junit.xml").read_text()
    assert [junit.count(f'name="{name}"') for name in ("square", "aa: square", "aa")] == [1, 1, 1]
    assert [junit.count(f'name="accuracy {name}"') for name in ("square", "aa: square", "aa")] == [1, 1, 1]


def test_an_attack_that_needs_more_classes_is_bad_input(bundle, tmp_path):
    result = edgeproof("verify", bundle, "--attacks", "apgd-t", "--out", "run")
    assert result.exit_code == 3
    assert "apgd-t needs 4 classes, and the model has 3" in result.stderr
    assert not (tmp_path / "run").exists()

"""`verify --on A,B --precision p,q`: a run for each, one comparison, and the exit code of the one that ships."""

import json
from dataclasses import replace

import pytest

from runtime.attacks import ATTACKS
from runtime.backends.table import BACKENDS
from runtime.errors import MissingEnvironment
from runtime.records.report import load_report
from tests.command_line import edgeproof
from tests.judges import JUDGE, Coarse, OnlyJudges
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.suite.test_plan import quantised_bundle
from tests.tiny import bundle_files, linear_task

BOTH = ("--on", f"ort:cpu,{JUDGE}", "--attacks", "pgd")
PLACES = ("ort-cpu", "tensorrt-tensorrt")


@pytest.fixture(autouse=True)
def _backend_that_only_judges(monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, OnlyJudges.backend())
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 20, "p": 0.8}))
    monkeypatch.setattr("runtime.commands.judging_each.SECONDS", 0.05)


def test_every_precision_on_every_runner_is_judged_alike_and_compared(tmp_path):
    out = tmp_path / "run"
    result = edgeproof(
        "verify", quantised_bundle(tmp_path / "b"), *BOTH, "--precision", "fp32,int8", "--no-gate", "--json",
        "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    names = [f"{runner} {precision}" for runner in ("ort:cpu", JUDGE) for precision in ("fp32", "int8")]
    printed = json.loads(result.stdout)
    assert printed == json.loads((out / "comparison.json").read_text())
    assert [run["run"] for run in printed["runs"]] == names
    reports = [load_report(out / f"{place}-{precision}") for place in PLACES for precision in ("fp32", "int8")]
    assert [each.artifact.backend for each in reports] == ["ort", "ort", "tensorrt", "tensorrt"]
    assert [each.artifact.gradient_backend for each in reports] == [None, None, "ort", "ort"]
    assert {frozenset(each.request.all_attacks) for each in reports} == {frozenset({"pgd", "square"})}
    for run, report in zip(printed["runs"], reports, strict=True):
        (worst,) = (figure for figure in run["figures"] if figure["name"] == "worst case")
        assert worst["value"] == report.robust_accuracy.value
        assert run["latency_ms"]["p50"] > 0
        assert "--on" not in report.request.command
    assert all(run["against"]["worst_case"] for run in printed["runs"][1:])
    assert all(name in (out / "comparison.html").read_text() for name in names)
    page = (out / "ort-cpu-int8/report.html").read_text()
    beside = page[page.index('<section id="comparison"') : page.index('<section id="radius"')]
    assert [beside.count(f'<th scope="row">tiny {name}') for name in ("fp32", "int8")] == [2, 1]
    assert "not measured (edgeproof bench)" not in page


@pytest.mark.parametrize(
    ("asked", "decides"),
    [("fp32,int8", "int8, which ships"), ("fp32,fp16", "fp32, the first"), ("fp16,int8", "int8, which ships")],
)
def test_the_precision_that_ships_decides_in_whatever_order_it_is_asked_for_else_the_first(asked, decides, tmp_path):
    bundle = quantised_bundle(tmp_path / "b", names=("fp32", "fp16", "int8"))
    result = edgeproof(
        "verify", bundle, "--precision", asked, "--attacks", "fgsm", "--no-gate", "--out", tmp_path / "r"
    )
    assert result.exit_code == 0, result.stderr
    assert f"the exit code is that of ort:cpu {decides};" in result.stdout


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)


@pytest.mark.parametrize(("on", "code"), [(f"ort:cpu,{JUDGE}", 0), (f"{JUDGE},ort:cpu", 5)])
def test_the_exit_code_is_that_of_the_first_whatever_the_others_find(on, code, bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, Coarse.backend())
    result = edgeproof("verify", bundle, "--on", on, "--fail-under", "0%", "--out", tmp_path / "run")
    verdicts = {place: load_report(tmp_path / f"run/{place}-fp32").verdict for place in PLACES}
    assert verdicts == {"ort-cpu": "passed", "tensorrt-tensorrt": "inconclusive"}, result.stderr
    assert result.exit_code == code, result.stderr
    assert f"the exit code is that of {on.split(',')[0]} fp32" in result.stdout
    assert "p50 / p90 ms, one image" in result.stdout


def test_what_was_judged_is_not_judged_again_and_the_rest_is(bundle, tmp_path, monkeypatch):
    def broken(bundle, how):
        raise MissingEnvironment("it is gone")

    out = tmp_path / "run"
    monkeypatch.setitem(BACKENDS, JUDGE.backend, replace(OnlyJudges.backend(), open=broken))
    assert edgeproof("verify", bundle, *BOTH, "--out", out).exit_code == 4
    before = (out / "ort-cpu-fp32/report.json").read_bytes()
    monkeypatch.setitem(BACKENDS, JUDGE.backend, OnlyJudges.backend())
    assert edgeproof("verify", bundle, *BOTH, "--out", out).exit_code == 2
    result = edgeproof("verify", bundle, *BOTH, "--resume", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert (out / "ort-cpu-fp32/report.json").read_bytes() == before
    assert (out / "comparison.json").is_file()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((*BOTH, "--shard", "1/2"), 2, "--shard belongs to one run"),
        ((*BOTH, "--provider", "cpu"), 2, "--on already names the providers"),
        (("--on", "ort:cpu,nothing"), 2, "is not a backend"),
        (("--on", "ort:cpu,command"), 2, "--judge-command"),
        (("--precision", "fp32,int8"), 3, "has no precision 'int8'"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_any_run(options, code, said, bundle, tmp_path):
    result = edgeproof("verify", bundle, *options, "--out", tmp_path / "run")
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert not (tmp_path / "run").exists()

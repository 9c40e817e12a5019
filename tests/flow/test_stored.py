"""What an earlier version wrote is read: tests/data/stored-0.1 holds what its README.md says."""

import json
import shutil
from importlib.metadata import distribution

import numpy as np
import pytest

from runtime.records.report import load_report
from runtime.report.phrases import verdict_of
from tests.command_line import edgeproof
from tests.paths import ROOT
from tests.runtime.verdict.long_run import move_here

STORED = ROOT / "tests" / "data" / "stored-0.1"
OPTIONS = ["--n", 8, "--save-adversarial", "--no-gate"]
COMMANDS = {
    *("teach", "distill", "evaluate", "export", "pack", "verify", "merge", "compare"),
    *("bench", "report", "gpu-check", "inspect", "install", "key", "study"),
}
GROUPS = {"commands", "preparers", "gpu_checks", "datasets"}
"""Of entry points, that other distributions may have joined."""


@pytest.fixture
def stored(tmp_path):
    return shutil.copytree(STORED, tmp_path / "stored")


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def assert_same_arrays(one, other):
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def call(*arguments):
    result = edgeproof(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def test_a_stored_bundle_is_verified_against_a_stored_run(stored):
    call("inspect", stored / "bundle")
    call("verify", stored / "bundle", *OPTIONS, "--against", stored / "run", "--out", stored / "now")
    was, now = load_report(stored / "run"), load_report(stored / "now")
    assert now.paired is not None
    assert now.paired.n == 8
    assert now.paired.both + now.paired.only_that == 8 * was.robust_accuracy.value
    assert now.clean.accuracy == was.clean.accuracy


def test_a_stored_run_is_compared_and_shown_again(stored):
    call("verify", stored / "bundle", *OPTIONS, "--out", stored / "now")
    assert "stored/run" in call("compare", stored / "run", stored / "now", "--format", "csv").stdout
    shutil.copy(stored / "bench.json", stored / "run")
    report, bench = (stored / "run/report.json").read_bytes(), json.loads((stored / "bench.json").read_bytes())
    call("report", stored / "run")
    page = (stored / "run/report.html").read_text()
    assert '<section id="latency"' in page
    assert all(f"{run['latency_ms']['p50']:.3g}" in page for run in bench["runs"])
    assert (stored / "run/report.json").read_bytes() == report


def test_stored_shards_are_merged_to_the_evidence_of_the_whole_run(stored):
    call("merge", stored / "shard-2", stored / "shard-1", "--out", stored / "merged")
    for name in ("evidence.npz", "gallery.npz"):
        assert_same_arrays(stored / "merged" / name, stored / "run" / name)
    whole, merged = load_report(stored / "run"), load_report(stored / "merged")
    for name in ("request", "clean", "robust_accuracy", "per_class", "confusion"):
        assert getattr(merged, name) == getattr(whole, name)
    assert merged.verdict == verdict_of(whole) == "measured"


def test_a_stored_run_that_was_killed_half_way_goes_on_to_its_end(stored):
    call("verify", stored / "bundle", "--n", 1, "--attacks", "fgsm", "--no-gate", "--out", stored / "here")
    move_here(stored / "half", json.loads((stored / "here/journal.jsonl").read_text().partition("\n")[0])["made_by"])
    result = call("verify", stored / "bundle", *OPTIONS, "--out", stored / "half", "--resume")
    assert "resuming: 4 units of work are done" in result.stderr
    whole, half = load_report(stored / "run"), load_report(stored / "half")
    assert half.request.unlike(whole.request) == []
    assert half.clean.accuracy == whole.clean.accuracy
    was, now = arrays(stored / "run/evidence.npz"), arrays(stored / "half/evidence.npz")
    assert was.keys() == now.keys()
    np.testing.assert_array_equal(was["clean_prediction"], now["clean_prediction"])


def test_a_stored_training_run_is_exported(stored, monkeypatch):
    monkeypatch.chdir(stored)  # its recipe names its images by a path from there
    call("export", stored / "trained", "--out", stored / "exported")
    call("verify", stored / "exported", "--attacks", "fgsm", "--no-gate", "--out", stored / "judged")
    assert load_report(stored / "judged").request.n == 16


def test_the_names_that_others_use_are_still_there():
    declared = distribution("edgeproof").entry_points
    assert {f"edgeproof.{group}" for group in GROUPS} <= declared.groups
    assert declared.select(group="edgeproof.commands").names >= COMMANDS

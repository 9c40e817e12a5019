"""One engine judges, another lends the gradient: every record says both, and neither takes the other's place."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.backends.table import BACKENDS
from runtime.images.image_set import ImageSet
from runtime.records.report import load_report
from runtime.session import BorrowedGradient
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.command_line import edgeproof
from tests.fakes import LinearSession, LyingGradients, planned
from tests.judges import JUDGE, Coarse, OnlyJudges, Remembering, Shifted
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.suite.test_plan import quantised_bundle
from tests.tiny import EPS, bundle_files, linear_task

ON = ("--backend", JUDGE.backend)
PGD = ("--attacks", "pgd")


@pytest.fixture(autouse=True)
def _backend_that_only_judges(monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, OnlyJudges.backend())
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 40, "p": 0.8}))


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)


def verified(bundle, out, *options, code=0):
    result = edgeproof("verify", bundle, *options, "--out", out)
    assert result.exit_code == code, result.stderr + result.stdout
    return result


def test_every_record_of_a_run_says_who_judged_and_who_lent_the_gradients(bundle, tmp_path):
    out = tmp_path / "run"
    result = verified(bundle, out, *ON, *PGD)
    report = load_report(out)
    for record in (report.artifact, report.request):
        assert (record.backend, record.provider) == (JUDGE.backend, JUDGE.provider)
        assert (record.gradient_backend, record.gradient_provider) == ("ort", "cpu")
    assert "--gradient-backend ort:cpu" in report.request.command
    assert (report.device["accelerator"], report.device["gradient_accelerator"]) == ("chip", "cpu")
    assert "pydantic" in report.software
    made_by = json.loads((out / "journal.jsonl").read_text().splitlines()[0])["made_by"]
    assert (made_by["accelerator"], made_by["gradient_accelerator"]) == ("chip", "cpu")
    with np.load(out / "evidence.npz") as evidence:
        assert (str(evidence["judge"]), str(evidence["gradients_by"])) == ("tensorrt/tensorrt", "ort/cpu")
    both = "tensorrt/tensorrt, gradients by ort/cpu"
    assert both in result.stdout
    assert both in (out / "summary.md").read_text()
    assert both in (out / "junit.xml").read_text()
    shutil.copytree(out, tmp_path / "again")
    assert both in edgeproof("compare", out, tmp_path / "again", "--format", "markdown").stdout


def test_who_judges_alone_says_nothing_of_a_lender_and_its_request_is_that_of_before(bundle, tmp_path):
    verified(bundle, tmp_path / "a", *PGD)
    verified(bundle, tmp_path / "b", *PGD, "--gradient-backend", "ort")
    first, second = ((tmp_path / name / "run.json").read_bytes() for name in "ab")
    assert first == second
    assert b"gradient_backend" not in first
    assert b"gradient-backend" not in first
    with np.load(tmp_path / "a" / "evidence.npz") as evidence:
        assert "judge" not in evidence


def test_the_same_answers_and_gradients_give_the_same_verdicts_whoever_judges(bundle, tmp_path):
    verified(bundle, tmp_path / "alone", "--eps", "0.03")
    verified(bundle, tmp_path / "paired", *ON, "--eps", "0.03")
    with np.load(tmp_path / "alone/evidence.npz") as alone, np.load(tmp_path / "paired/evidence.npz") as paired:
        np.testing.assert_array_equal(alone["broken_by"] == -1, paired["broken_by"] == -1)
        assert (alone["broken_by"] >= 0).any()


def test_the_parents_gradient_of_an_int8_judge_is_lent_too(tmp_path):
    verified(quantised_bundle(tmp_path / "b"), tmp_path / "run", *ON, *PGD)
    report = load_report(tmp_path / "run")
    assert [(row.name, row.gradient) for row in report.attacks] == [
        ("pgd", "own"), ("pgd", "parent"), ("square", "none"),
    ]  # fmt: skip
    assert None not in (report.agreement, report.parent_agreement, report.request.parent_gradient_sha256)


def test_a_drop_is_measured_by_the_same_judge_and_the_same_lender(tmp_path):
    out = tmp_path / "run"
    result = edgeproof("verify", quantised_bundle(tmp_path / "b"), *ON, *PGD, "--max-drop", "90%", "--out", out)
    assert result.exit_code in (0, 5), result.stderr
    for directory in (out, tmp_path / "run-fp32"):
        artifact = load_report(directory).artifact
        assert (artifact.backend, artifact.gradient_backend) == (JUDGE.backend, "ort")


class Hiding(LinearSession):
    """Its gradient graph calls every point classified correctly, whatever it is."""

    def loss_gradient(self, x, loss):
        _, value, gradient = super().loss_gradient(x, loss)
        return 1000 * loss.label, value, gradient


@pytest.mark.parametrize("attacks", [("fgsm", "pgd", "cw"), ("aa",)])
@pytest.mark.parametrize("lender", [LyingGradients, Hiding])
def test_the_judge_alone_decides_what_breaks_an_image(lender, attacks):
    weight, bias, images, labels = linear_task(n=40)
    judge, images = LinearSession(weight, bias), ImageSet("some", images, labels, np.arange(40))

    def robust(session):
        target = Target(session, images, 3, 16)
        evidence = run_suite(
            target, planned(target, attacks), eps=3 * EPS, seed=0, keep_all=True, progress=Silent()
        ).evidence
        answers = judge.logits(evidence.adversarial).argmax(axis=1)
        np.testing.assert_array_equal(evidence.robust, (answers == labels) & evidence.correct)
        return evidence.robust

    np.testing.assert_array_equal(
        robust(BorrowedGradient(judge, lender(weight, bias))), robust(BorrowedGradient(judge, judge))
    )


@pytest.mark.parametrize(
    ("judge", "checks"),
    [
        (Shifted, {"agreement", "clean-above-chance"}),
        (Coarse, {"gradient-holds"}),
        (Remembering, {"gradient-holds"}),
    ],
)
def test_a_judge_that_the_lent_gradient_does_not_fit_gets_no_verdict(judge, checks, bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, judge.backend())
    verified(bundle, tmp_path / "run", *ON, "--fail-under", "0%", code=5)
    report = load_report(tmp_path / "run")
    assert checks <= {each.check for each in report.warnings if each.blocking}
    assert report.verdict == "inconclusive"


def test_a_judge_and_a_lender_that_disagree_are_both_named(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, Shifted.backend())
    verified(bundle, tmp_path / "run", *ON, *PGD, "--no-gate", code=5)
    (finding,) = (each for each in load_report(tmp_path / "run").warnings if each.check == "agreement")
    assert "the gradient graph on ort/cpu predicts as the artifact does on" in finding.message
    assert "tensorrt/tensorrt judges and ort/cpu computes the gradient, but their answers differ" in finding.hint


def test_a_run_goes_on_by_the_same_lender_alone(bundle, tmp_path):
    verified(bundle, tmp_path / "run", *PGD)
    journal = (tmp_path / "run/journal.jsonl").read_bytes()
    result = verified(bundle, tmp_path / "run", *PGD, *ON, "--resume", code=3)
    assert "began with backend ort, but this command has tensorrt" in result.stderr
    verified(bundle, tmp_path / "lent", *PGD, *ON)
    text = (tmp_path / "lent/run.json").read_text()
    changed = json.loads(text)["request"] | {"gradient_provider": "cuda"}
    write_request(tmp_path / "lent", changed)
    result = verified(bundle, tmp_path / "lent", *PGD, *ON, "--resume", code=3)
    assert "began with gradient_provider cuda, but this command has cpu" in result.stderr
    assert (tmp_path / "run/journal.jsonl").read_bytes() == journal


def write_request(directory, fields):
    """Write a run.json as the same run by another lender has it."""
    from runtime.records.request import Request
    from runtime.verdict.run_directory import write_run_record

    write_run_record(directory, Request.model_validate(fields))


def test_shards_by_different_lenders_are_not_merged(bundle, tmp_path):
    for number in (1, 2):
        verified(bundle, tmp_path / str(number), *PGD, *ON, "--shard", f"{number}/2")
    merged = edgeproof("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "whole")
    assert merged.exit_code == 0, merged.stderr
    assert load_report(tmp_path / "whole").artifact.lender == "ort/cpu"
    shard = json.loads((tmp_path / "2/shard.json").read_text())
    request = json.loads((tmp_path / "2/run.json").read_text())["request"] | {"gradient_provider": "cuda"}
    write_request(tmp_path / "2", request)
    shard["request_sha256"] = json.loads((tmp_path / "2/run.json").read_text())["request_sha256"]
    (tmp_path / "2/shard.json").write_text(json.dumps(shard))
    refused = edgeproof("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "other")
    assert (refused.exit_code, "its gradient_provider differs from that of" in refused.stderr) == (3, True)


def test_worst_cases_by_other_borrowed_gradients_are_not_compared(bundle, tmp_path, monkeypatch):
    ort = BACKENDS["ort"]
    verified(bundle, tmp_path / "lent", *PGD, *ON)
    monkeypatch.setitem(BACKENDS, JUDGE.backend, replace(ort, providers=("cpu",), open=as_another(ort.open)))
    verified(bundle, tmp_path / "own", *PGD, "--backend", JUDGE.backend)
    assert load_report(tmp_path / "own").artifact.backend == "other"
    result = verified(bundle, tmp_path / "new", *PGD, *ON, "--against", tmp_path / "lent", code=3)
    assert "the attacks followed gradients of other:cpu and of ort:cpu" in result.stderr
    shown = edgeproof("compare", tmp_path / "own", tmp_path / "lent").stdout
    assert "followed gradients of" in shown


def as_another(open_):
    """Return an opener of the same sessions under another name."""

    class Named(BorrowedGradient):
        def __init__(self, session):
            super().__init__(session, session)

        def card(self):
            return replace(self._judge.card(), backend="other")

    return lambda bundle, how: Named(open_(bundle, how))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gradient", "none", "--gradient-backend", "ort"), "--gradient none uses no gradient"),
        (("--gradient-backend", "nothing"), "is not a backend"),
        (("--gradient-backend", "ort:nothing"), "has no provider nothing"),
    ],
)
def test_a_lender_that_cannot_be_meant_is_a_usage_error(options, said, bundle, tmp_path):
    result = verified(bundle, tmp_path / "run", *options, code=2)
    assert said in result.stderr
    assert not (tmp_path / "run").exists()

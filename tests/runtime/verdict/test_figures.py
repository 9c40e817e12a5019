"""The figures of a verdict: those of the evidence, and of what is known in closed form."""

import io
from pathlib import Path

import numpy as np
import pytest

from runtime.bundle.manifest import EVALUATION
from runtime.checks.table import check
from runtime.images.image_set import ImageSet
from runtime.records.report import load_report
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.command_line import edgeproof
from tests.fakes import LinearSession, artifact, planned
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import EPS, FORWARD, GRADIENT, graph

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_the_figures_of_the_report_are_those_of_the_evidence(finished, evidence):
    read = load_report(finished[0])
    robust, correct = evidence["broken_by"] == -1, evidence["broken_by"] != -2
    assert read.robust_accuracy.value == robust.mean()
    assert read.clean.accuracy == correct.mean()
    assert read.robust_accuracy.value <= min(row.accuracy for row in read.attacks)
    for row in read.per_class:
        own = evidence["label"] == row.label
        assert (row.n, row.clean, row.robust) == (own.sum(), correct[own].mean(), robust[own].mean())
    expected = np.zeros((3, 3), int)
    for label, prediction in zip(evidence["label"], evidence["adversarial_prediction"], strict=True):
        expected[label, prediction] += 1
    assert read.confusion == tuple(map(tuple, expected.tolist()))
    assert np.trace(expected) == robust.sum()


def test_every_broken_point_in_the_evidence_can_be_checked_again(evidence, task, files):
    weight, bias, *_ = task
    with np.load(io.BytesIO(files[EVALUATION])) as file:
        clean = file["images"].astype(np.float32) / np.float32(255)
    x = evidence["adversarial"]
    distance = np.abs(x.astype(np.float64) - clean).reshape(60, -1).max(axis=1)
    np.testing.assert_array_equal(distance, evidence["linf"])
    assert distance.max() <= EPS + 1e-6
    assert x.min() >= 0
    assert x.max() <= 1
    predicted = LinearSession(weight, bias).logits(x).argmax(axis=1)
    np.testing.assert_array_equal(predicted == evidence["label"], evidence["broken_by"] == -1)


def test_the_closed_form_bounds_the_verdict(evidence, task, files):
    weight, bias, *_ = task
    with np.load(io.BytesIO(files[EVALUATION])) as file:
        clean = file["images"].astype(np.float32) / np.float32(255)
    certain = LinearSession(weight, bias).margins(clean, evidence["label"]) > EPS
    robust = evidence["broken_by"] == -1
    assert (robust >= certain).all()
    assert robust.sum() <= certain.sum() + 2


def test_a_run_without_attacks_claims_no_robust_accuracy(bundle):
    result = edgeproof("verify", bundle, "--attacks", "clean", "--out", "run")
    assert "no attack within eps ran" in result.stdout
    assert load_report(Path("run")).warnings == ()


def without_gradient(files, task):
    """Return the files with a gradient graph that answers zeros."""
    flat = GRADIENT.replace(
        "gradient = Reshape(flat_gradient, shape)",
        "nought = Sub(flat_gradient, flat_gradient)\n  gradient = Reshape(nought, shape)",
    )
    return {**files, "model.fp32.grad.onnx": graph(flat, *task[:2])}


@pytest.mark.parametrize("options", [[], ["--fail-under", "1%"], ["--fail-under", "99%"]])
def test_a_gradient_that_is_zero_leaves_no_verdict(tmp_path, task, files, options):
    masked = write_bundle(tmp_path / "masked", without_gradient(files, task), n=60)
    result = edgeproof("verify", masked, *options, "--out", "run")
    read = load_report(Path("run"))
    assert (result.exit_code, read.verdict) == (5, "inconclusive")
    finding = next(warning for warning in read.warnings if warning.check == "zero-gradient")
    assert finding.blocking
    assert f"{read.clean.correct} of {read.clean.correct} correctly classified images" in finding.message
    assert read.reasons[0] == finding.message
    assert result.stdout.startswith("inconclusive\n")
    assert finding.hint in result.stdout


@pytest.mark.parametrize(("zero", "blocks"), [(2, False), (3, True)])
def test_one_image_in_a_hundred_may_be_without_a_gradient(zero, blocks):
    images = ImageSet("grey", np.full((200, 1, 4, 4), 0.5, np.float32), np.zeros(200, int), np.arange(200))
    session = LinearSession(np.eye(3, 16, dtype=np.float32), np.zeros(3, np.float32))
    target = Target(session, images, 3, 64)
    outcome = run_suite(target, planned(target, ["fgsm"]), eps=EPS, seed=0, keep_all=False, progress=Silent())
    outcome.evidence.blind["own"][:zero] = True
    assert [each.check for each in check(outcome, classes=3, artifact=artifact()) if each.state == "found"] == [
        "zero-gradient"
    ] * blocks


def test_an_artifact_that_answers_nan_is_inconclusive(tmp_path, task, files):
    broken = graph(FORWARD, np.full_like(task[0], np.nan), task[1])
    bundle = write_bundle(tmp_path / "nan", {**files, "model.fp32.onnx": broken}, n=60)
    result = edgeproof("verify", bundle, "--out", "run")
    assert result.exit_code == 5
    assert "the logit of image 0 is NaN" in result.stderr
    assert not (tmp_path / "run").exists()


def test_points_of_the_curve_that_meet_are_each_measured(bundle):
    result = edgeproof("verify", bundle, "--eps", "0.5", "--n", 20, "--attacks", "pgd", "--no-gate", "--out", "run")
    assert result.stderr.count("PGD at eps 1: 14 images") == 2  # on the curve, and far out
    assert "from before" not in result.stderr

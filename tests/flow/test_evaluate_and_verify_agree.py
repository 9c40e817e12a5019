"""The PyTorch student and the exported artifact, attacked by the same suite, image by image."""

import json

import numpy as np
import pytest
import torch

from pipeline.runs.directory import open_run
from pipeline.runs.evaluate import TorchSession
from runtime.backends.table import open_session
from runtime.bundle.opening import open_bundle
from tests.command_line import edgeproof

N = 250
MAY_DIFFER = 0.005
SURE = 1e-4


@pytest.fixture(scope="module")
def runs(trained_run, bundle, tmp_path_factory):
    """Return (report, evidence) of evaluate and of verify on the same images."""
    results = []
    for name, subject in (("evaluate", trained_run), ("verify", bundle)):
        out = tmp_path_factory.mktemp("agree") / name
        result = edgeproof(name, subject, "--n", N, "--save-adversarial", "--out", out)
        assert result.exit_code == 0, result.output
        with np.load(out / "evidence.npz", allow_pickle=False) as evidence:
            results.append((json.loads((out / "report.json").read_text()), dict(evidence)))
    return results


def test_both_judge_the_same_images_by_the_same_attacks(runs):
    (torch_report, torch_evidence), (ort_report, ort_evidence) = runs
    assert torch_report["data"] == ort_report["data"]
    assert torch_report["artifact"]["backend"] == "torch"
    assert ort_report["artifact"]["backend"] == "ort"
    assert [row["name"] for row in torch_report["attacks"]] == ["fgsm", "pgd", "cw"]
    np.testing.assert_array_equal(torch_evidence["index"], ort_evidence["index"])


def test_the_attacks_break_some_images_and_leave_some(runs):
    for report, _ in runs:
        assert 0.05 < report["robust_accuracy"]["value"] < report["clean"]["accuracy"] < 1


def test_verdicts_differ_on_at_most_one_image_in_two_hundred(runs):
    (_, ours), (_, theirs) = runs
    stands = [evidence["broken_by"] == -1 for evidence in (ours, theirs)]
    differing = {
        int(image): f"evaluate {ours['margin'][image]:+.2e}, verify {theirs['margin'][image]:+.2e}"
        for image in np.flatnonzero(stands[0] != stands[1])
    }
    assert len(differing) <= MAY_DIFFER * N, f"margins of the images that differ: {differing}"


def test_the_artifact_keeps_to_the_same_worst_points_that_evaluate_found(runs, trained_run, bundle):
    """Each side's adversarial points get the same prediction from both, wherever the margin is not tiny."""
    run = open_run(trained_run, "best")
    network = TorchSession(run.network, sha256=run.checkpoint_sha256, device=torch.device("cpu"))
    artifact = open_session(open_bundle(bundle), precision="fp32", backend="ort", provider="cpu")
    for _, evidence in runs:
        points = evidence["adversarial"]
        predictions = network.logits(torch.from_numpy(points)).argmax(dim=1).numpy(), artifact.logits(points).argmax(1)
        sure = np.abs(evidence["margin"]) > SURE
        assert sure.mean() > 0.95
        np.testing.assert_array_equal(predictions[0][sure], predictions[1][sure])
        np.testing.assert_array_equal(predictions[1][sure], evidence["adversarial_prediction"][sure])

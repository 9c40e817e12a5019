"""Clean accuracy at chance, or under what is expected, keeps a gate from passing: the model does not see its images."""

import json

import numpy as np
import pytest

from runtime.bundle.manifest import Reference
from runtime.checks.clean import above_chance, chance, least_expected
from runtime.spec import Gate
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def wrong(task, tmp_path):
    """The tiny bundle's images with the labels of others."""
    *_, images, labels = task
    np.savez(tmp_path / "wrong.npz", x=images, y=np.random.default_rng(0).permutation(labels))
    return tmp_path / "wrong.npz"


def judged(*arguments, out="run"):
    """Return exit code, report, and what `clean-above-chance` says."""
    result = edgeproof("verify", *arguments, "--out", out, "--json")
    report = json.loads(result.stdout)
    (check,) = [each for each in report["checks"] if each["check"] == "clean-above-chance"]
    assert (check["state"] == "found") == any(each["check"] == check["check"] for each in report["warnings"])
    return result.exit_code, report, check


def test_labels_of_other_images_pass_no_gate(bundle, wrong):
    code, report, check = judged(bundle, "--data", wrong, "--fail-under", "1%")
    assert (code, report["verdict"], check["state"]) == (5, "inconclusive", "found")
    assert check["message"] in report["reasons"]
    assert "always answering the commonest class gives 40.0 %" in check["message"]
    for word in ("labels", "normalisation", "order of the channels"):
        assert word in check["hint"]


def test_a_gate_fails_at_chance_all_the_same(bundle, wrong):
    code, report, check = judged(bundle, "--data", wrong, "--fail-under", "90%")
    assert (code, report["verdict"], check["state"]) == (1, "failed", "found")


def test_without_a_gate_what_is_at_chance_is_measured_and_noted(bundle, wrong):
    code, report, check = judged(bundle, "--data", wrong)
    assert (code, report["verdict"], check["state"], check["blocking"]) == (0, "measured", "found", False)


def test_without_an_attack_chance_is_looked_at_too(bundle, wrong):
    assert judged(bundle, "--data", wrong, "--attacks", "clean")[2]["state"] == "found"
    assert judged(bundle, "--attacks", "clean", out="right")[2]["state"] == "quiet"


def test_chance_is_the_share_of_the_commonest_class():
    label = np.repeat([0, 1], [95, 5])
    assert chance(label) == 0.95
    assert not above_chance(label, label == 0)
    balanced = np.arange(100) % 10
    assert chance(balanced) == 0.1
    assert not above_chance(balanced, np.arange(100) < 15)
    assert above_chance(balanced, np.arange(100) < 30)


@pytest.mark.parametrize(("asked", "state", "code"), [("99%", "found", 5), ("60%", "quiet", 0)])
def test_an_expected_accuracy_that_is_missed_passes_no_gate(bundle, asked, state, code):
    found = judged(bundle, "--fail-under", "1%", "--expect-clean", asked)
    assert (found[0], found[2]["state"]) == (code, state)
    assert ("and the model should reach at least 99.0 %" in found[2]["message"]) == (state == "found")


def test_what_is_expected_is_recorded_and_repeated_and_else_not_written(bundle):
    report = judged(bundle, "--expect-clean", "60%")[1]
    assert report["request"]["expect_clean"] == 0.6
    assert "--expect-clean 0.6" in report["request"]["command"]
    edgeproof("verify", bundle, "--out", "silent")
    with open("silent/run.json") as file:
        request = json.load(file)["request"]
    assert "expect_clean" not in request
    assert "--expect-clean" not in request["command"]


def test_a_bundle_expects_what_its_training_measured_unless_something_else_is_asked(tmp_path, files):
    reference = Reference(checkpoint="last", n=2000, clean=0.995, pgd=0.5)
    bundle = write_bundle(tmp_path / "bundle", files, n=60, gate=Gate(fail_under=0.05), reference=reference)
    code, report, check = judged(bundle)
    assert report["request"]["expect_clean"] == least_expected(0.995, 2000) == pytest.approx(0.941, abs=1e-3)
    assert (code, check["state"]) == (5, "found")


def test_of_a_bundles_own_images_the_larger_expectation_counts_and_of_others_what_is_asked(tmp_path, files, task):
    reference = Reference(checkpoint="last", n=2000, clean=0.995, pgd=0.5)
    bundle = write_bundle(tmp_path / "bundle", files, n=60, gate=Gate(fail_under=0.05), reference=reference)
    code, report, check = judged(bundle, "--expect-clean", "0%", out="own")
    assert (code, check["state"]) == (5, "found")
    assert report["request"]["expect_clean"] == least_expected(0.995, 2000)
    assert judged(bundle, "--expect-clean", "99%", out="more")[1]["request"]["expect_clean"] == 0.99
    np.savez("other.npz", x=np.round(task[2] * 255).astype(np.uint8), y=task[3])
    for asked, expected in ((["--expect-clean", "60%"], 0.6), ([], least_expected(0.995, 2000))):
        report = judged(bundle, "--data", "other.npz", *asked, out=f"other {expected}")[1]
        assert report["request"]["expect_clean"] == expected

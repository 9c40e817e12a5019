"""Copies of images are no sample: they keep a gate from passing, and the number of distinct images is said."""

import io
import json

import numpy as np
import pytest

from runtime.bundle.manifest import EVALUATION
from runtime.checks.copies import check_copies
from runtime.images.image_set import ImageSet
from runtime.spec import Gate
from runtime.suite.evidence import PER_IMAGE, Evidence
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

SUITE = ["--attacks", "fgsm,pgd,cw"]


@pytest.fixture
def gated(tmp_path, files):
    return write_bundle(tmp_path / "gated", files, n=60, gate=Gate(fail_under=0.05))


@pytest.fixture
def own(files):
    """Write images of the tiny bundle at an index into an .npz, and return its name."""

    def write(index):
        with np.load(io.BytesIO(files[EVALUATION])) as file:
            np.savez("own.npz", x=file["images"][index], y=file["labels"][index])
        return "own.npz"

    return write


def judged(*arguments, out="run"):
    """Return exit code, verdict, and what `repeated-images` says."""
    result = edgeproof(*arguments, "--out", out, "--json")
    report = json.loads(result.stdout)
    (check,) = [each for each in report["checks"] if each["check"] == "repeated-images"]
    return result.exit_code, report["verdict"], check


def test_images_of_which_each_comes_once_are_counted_and_pass(gated):
    code, verdict, check = judged("verify", gated)
    assert (code, verdict, check["state"]) == (0, "passed", "quiet")
    assert check["message"] == "60 of the 60 images judged are distinct"


def test_a_few_images_many_times_pass_no_gate_and_meet_no_claim(gated, own):
    code, verdict, check = judged("verify", gated, "--data", own(np.arange(120) % 30))
    assert (code, verdict, check["state"], check["blocking"]) == (5, "inconclusive", "found", True)
    assert check["message"] == "30 of the 120 images judged are distinct: 75.0 % are copies, which add no evidence"


def test_a_gate_fails_on_copies_all_the_same(gated, own):
    code, verdict, check = judged("verify", gated, "--data", own(np.arange(120) % 30), "--fail-under", "99%")
    assert (code, verdict, check["state"]) == (1, "failed", "found")


def test_without_a_gate_copies_are_noted(gated, own):
    code, verdict, check = judged("verify", gated, "--data", own(np.arange(120) % 30), "--no-gate")
    assert (code, verdict, check["state"], check["blocking"]) == (0, "measured", "found", False)


def test_one_image_in_a_hundred_may_be_a_copy(own):
    class Gated:
        gate = Gate(fail_under=0.5)

    for copies, state in ((2, "quiet"), (3, "found")):
        pixels = np.arange(200)
        pixels[:copies] = 199
        check = check_copies(Gated(), pixels)
        assert check.state == state
        assert f"{200 - copies} of the 200 images" in check.message


def test_a_run_that_stops_early_counts_the_images_that_it_judged(gated, own):
    data = own(np.arange(400) % 20)
    code, verdict, check = judged("verify", gated, "--data", data, "--until-decided")
    assert (code, verdict, check["state"]) == (5, "inconclusive", "found")
    assert check["message"].startswith("20 of the ")
    assert "of the 400" not in check["message"]


def test_copies_in_other_shards_are_found_where_they_are_merged(gated, own):
    """Each shard holds every image once; the next shard holds it again."""
    data = own(np.repeat(np.arange(60), 2))
    for number in (1, 2):
        options = ["--data", data, *SUITE, "--shard", f"{number}/2", "--out", f"shard{number}"]
        assert edgeproof("verify", gated, *options).exit_code == 0
    code, verdict, check = judged("merge", "shard1", "shard2", out="merged")
    assert (code, verdict, check["state"]) == (5, "inconclusive", "found")
    assert check["message"].startswith("60 of the 120 images")


def test_shards_of_an_earlier_version_which_recorded_no_pixels_are_read_and_pass_no_gate(gated):
    for number in (1, 2):
        assert edgeproof("verify", gated, *SUITE, "--shard", f"{number}/2", "--out", f"shard{number}").exit_code == 0
        with np.load(f"shard{number}/evidence.npz") as file:
            arrays = {name: array for name, array in file.items() if name != "pixels"}
        assert arrays.keys() >= set(PER_IMAGE) - {"pixels"}
        np.savez(f"shard{number}/evidence.npz", **arrays)
    code, verdict, check = judged("merge", "shard1", "shard2", out="merged")
    assert (code, verdict, check["state"]) == (5, "inconclusive", "found")
    assert check["message"].startswith("an earlier version made one of the shards")


def test_images_are_copies_by_their_pixels_whatever_their_labels():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), np.uint8)
    twice = ImageSet("twice", np.concatenate([images, images]), np.arange(8) % 3, np.arange(8))
    evidence = Evidence.blank(twice, np.arange(0))
    np.testing.assert_array_equal(evidence.pixels[:4], evidence.pixels[4:])
    assert len(np.unique(evidence.pixels)) == 4
    floats = ImageSet("floats", twice.images.transpose(0, 1, 3, 2) / np.float32(255), twice.labels, twice.ids)
    assert len(np.unique(floats.pixels)) == 4

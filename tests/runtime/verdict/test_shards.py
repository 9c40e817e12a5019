import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle.manifest import EVALUATION
from runtime.images.image_set import ImageSet
from runtime.records.report import ShardRecord, load_report
from runtime.spec import Shard, ThreatModel
from runtime.suite.outcome import COUNTS
from runtime.terminal.progress import Silent
from runtime.verdict.case import prepare_case
from runtime.verdict.options import VerifyOptions
from runtime.verdict.shards import Part, add_outcomes
from runtime.verdict.subject import Subject
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.paths import TINY
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.verdict.long_run import assert_same
from tests.tiny import EPS, bundle_files, linear_task, npz

OPTIONS = ["--attacks", "fgsm,pgd,cw", "--save-adversarial", "--lattice", "uint8", "--fail-under", "20%"]
COUNT = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bundle, a run of all its images against another, and the same run in shards, each with another batch."""
    place = tmp_path_factory.mktemp("shards")
    write_bundle(place / "bundle", bundle_files(linear_task()), n=60)
    assert edgeproof("verify", place / "bundle", *OPTIONS, "--out", place / "other").exit_code == 0
    against = [*OPTIONS, "--against", place / "other"]
    assert edgeproof("verify", place / "bundle", *against, "--out", place / "whole").exit_code == 0
    for number in range(1, COUNT + 1):
        shard = ["--shard", f"{number}/{COUNT}", "--out", place / f"shard{number}"]
        result = edgeproof("verify", place / "bundle", *against, *shard, "--batch", 64 if number == 1 else number)
        assert (result.exit_code, result.stdout) == (0, ""), result.stderr
        assert "edgeproof merge" in result.stderr
    return place


def merge(place, *numbers, out):
    return edgeproof("merge", *(place / f"shard{number}" for number in numbers), "--out", out)


def test_merged_shards_give_the_evidence_and_verdict_of_one_run(place, tmp_path):
    result = merge(place, 3, 1, 2, out=tmp_path / "merged")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("passed\n")
    merged, whole = tmp_path / "merged", place / "whole"
    assert_same(merged, whole)
    assert {path.name for path in merged.iterdir()} == {path.name for path in whole.iterdir()} - {"journal.jsonl"}


def test_the_evidence_of_a_convolutional_network_depends_on_neither_batch_nor_shards(tmp_path):
    stored = TINY
    runs = {"whole": [], "one by one": ["--batch", 1], "a": ["--shard", "1/2", "--batch", 3], "b": ["--shard", "2/2"]}
    for name, options in runs.items():
        result = edgeproof("verify", stored, "--save-adversarial", *options, "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    assert edgeproof("merge", tmp_path / "b", tmp_path / "a", "--out", tmp_path / "merged").exit_code == 0
    whole, *others = ((tmp_path / name / "evidence.npz").read_bytes() for name in ("whole", "one by one", "merged"))
    assert all(other == whole for other in others)


def test_a_shard_leaves_its_part_and_no_verdict(place):
    names = {path.name for path in (place / "shard1").iterdir()}
    assert names == {"run.json", "journal.jsonl", "evidence.npz", "gallery.npz", "shard.json"}
    with np.load(place / "shard2" / "evidence.npz") as evidence:
        np.testing.assert_array_equal(evidence["index"], np.arange(1, 60, 3))


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_shard_is_no_finished_run_and_what_to_do_is_said(place, command):
    result = edgeproof(command, place / "shard1", place / "whole")
    assert (result.exit_code, "hint: it is a shard: `edgeproof merge`" in result.stderr) == (3, True)


def test_the_gate_judges_what_is_merged(place, tmp_path):
    for number in (1, 2):
        options = [
            "--attacks",
            "fgsm",
            "--fail-under",
            "99%",
            "--shard",
            f"{number}/2",
            "--out",
            tmp_path / f"{number}",
        ]
        assert edgeproof("verify", place / "bundle", *options).exit_code == 0
    assert edgeproof("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "merged").exit_code == 1
    assert load_report(tmp_path / "merged").verdict == "failed"


def of_device(path, **device):
    record = json.loads(path.read_text())
    record["circumstances"]["device"] |= device
    record["circumstances"]["artifact"]["engine_sha256"] = device["engine"]
    path.write_text(json.dumps(record))


def test_shards_of_several_devices_merge_and_the_report_names_them_all(place, tmp_path):
    boards = {1: ("Orin", "15W", "0" * 64), 2: ("Thor", "120W", "1" * 64), 3: ("Orin", "15W", "0" * 64)}
    for number, (board, mode, engine) in boards.items():
        shutil.copytree(place / f"shard{number}", tmp_path / f"shard{number}")
        card = {"board": board, "cpu": f"{board}'s", "engine": engine}
        if number > 1:
            card["power_mode"] = mode
        of_device(tmp_path / f"shard{number}" / "shard.json", **card)
    assert merge(tmp_path, 1, 2, 3, out=tmp_path / "merged").exit_code == 0
    report = load_report(tmp_path / "merged")
    assert (report.device["board"], report.device["cpu"]) == ("Orin, Thor", "Orin's, Thor's")
    assert report.device["power_mode"] == "unknown, 120W, 15W"
    assert report.device["architecture"] == load_report(place / "whole").device["architecture"]
    assert report.artifact.engine_sha256 is None
    assert (tmp_path / "merged" / "evidence.npz").read_bytes() == (place / "whole" / "evidence.npz").read_bytes()


@pytest.mark.parametrize("empty", [1, 2])
def test_a_shard_without_an_image_left_to_attack_can_be_merged(tmp_path, empty):
    """Two images, one to a shard; one of them is misclassified without any attack."""
    task = linear_task(n=2)
    images = task[2]
    right = LinearSession(*task[:2]).logits(images).argmax(axis=1)
    right[empty - 1] = (right[empty - 1] + 1) % 3
    stored = npz(images=np.round(images * 255).astype(np.uint8), labels=right, ids=np.arange(2))
    bundle = write_bundle(tmp_path / "bundle", {**bundle_files(task), EVALUATION: stored}, n=2)
    for number in (1, 2):
        options = ["--attacks", "fgsm,pgd", "--shard", f"{number}/2", "--out", tmp_path / f"shard{number}"]
        assert edgeproof("verify", bundle, *options).exit_code == 0
    assert edgeproof("verify", bundle, "--attacks", "fgsm,pgd", "--out", tmp_path / "whole").exit_code == 0
    result = merge(tmp_path, 1, 2, out=tmp_path / "merged")
    assert result.exit_code == 0, result.stderr
    merged, whole = (load_report(tmp_path / name) for name in ("merged", "whole"))
    assert merged.checks == whole.checks
    assert merged.clean.correct == 1


@pytest.fixture
def copy(place, tmp_path):
    """The shards, to be spoilt."""
    for number in range(1, COUNT + 1):
        shutil.copytree(place / f"shard{number}", tmp_path / f"shard{number}")
    return tmp_path


def foreign(copy, place):
    options = [*OPTIONS, "--against", place / "other", "--seed", 1, "--shard", "3/3"]
    assert edgeproof("verify", place / "bundle", *options, "--out", copy / "foreign").exit_code == 0
    return ["shard1", "shard2", "foreign"]


def of_another_count(copy, place):
    options = [*OPTIONS, "--against", place / "other", "--shard", "2/2"]
    assert edgeproof("verify", place / "bundle", *options, "--out", copy / "half").exit_code == 0
    return ["shard1", "half", "shard3"]


def other_images(copy, place):
    shutil.copy(copy / "shard1" / "evidence.npz", copy / "shard2" / "evidence.npz")
    return ["shard1", "shard2", "shard3"]


def not_finished(copy, place):
    (copy / "shard2" / "shard.json").unlink()
    return ["shard1", "shard2", "shard3"]


def damaged(copy, place):
    path = copy / "shard2" / "evidence.npz"
    path.write_bytes(path.read_bytes()[:-40])
    return ["shard1", "shard2", "shard3"]


def record_of_another(copy, place):
    shutil.copy(copy / "shard1" / "shard.json", copy / "shard2" / "shard.json")
    return ["shard1", "shard2", "shard3"]


def a_whole_run(copy, place):
    shutil.copytree(place / "whole", copy / "whole")
    return ["shard1", "shard2", "whole"]


REFUSED = {
    "missing": (lambda copy, place: ["shard1", "shard3"], "shards are missing: 2/3"),
    "overlapping": (lambda copy, place: ["shard1", "shard2", "shard2", "shard3"], "overlap: both are shard 2/3"),
    "foreign": (foreign, "belongs to another run: its seed differs from that of"),
    "another count": (of_another_count, "is shard 2/2"),
    "other images": (other_images, "does not hold the images of shard 2/3"),
    "not finished": (not_finished, "shard2 is not finished"),
    "damaged": (damaged, "shard2 is damaged"),
    "record of another": (record_of_another, "belongs to another request"),
    "a whole run": (a_whole_run, "whole is a whole run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_shards_that_are_not_those_of_one_run_are_refused_with_the_reason(copy, place, case):
    spoil, reason = REFUSED[case]
    names = spoil(copy, place)
    result = edgeproof("merge", *(copy / name for name in names), "--out", copy / "merged")
    assert result.exit_code == 3, result.stderr
    assert reason in result.stderr
    assert ("--resume" in result.stderr) == (case == "not finished")
    assert not (copy / "merged").exists()


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/3/5", ""])
def test_a_shard_that_is_none_is_a_usage_error(place, tmp_path, shard):
    result = edgeproof("verify", place / "bundle", "--shard", shard, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "is not I/N with 1 <= I <= N, like 2/5" in result.stderr


def test_a_shard_without_images_is_refused(place, tmp_path):
    result = edgeproof("verify", place / "bundle", "--n", 3, "--shard", "4/4", "--out", tmp_path / "run")
    assert result.exit_code == 3
    assert "shard 4/4 of 3 images is empty" in result.stderr


@given(n=st.integers(1, 500), count=st.integers(1, 50))
def test_every_image_is_in_exactly_one_shard(n, count):
    index = np.arange(n)
    parts = [Shard(number, count).of(index) for number in range(1, count + 1)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), index)
    assert Shard.parse(str(Shard(count, count))) == Shard(count, count)


class Lying(LinearSession):
    """Tells slopes of nothing on the images that a corner marks."""

    def loss_gradient(self, x, loss):
        z, value, gradient = super().loss_gradient(x, loss)
        return z, value, np.where(x[:, :, :1, :1] > 0.5, np.float32(0), gradient)


@pytest.mark.parametrize(("lies", "smoothed"), [(0, False), (24, True)])
def test_shards_try_smoothed_gradients_where_the_whole_run_does(lies, smoothed):
    """All doubtful images are of one shard, so that no other knows of them; of none, the shard that looked forgets."""
    weight, bias, images, labels = linear_task(n=300)
    weight, images = weight.copy(), images.copy()
    weight[:, 0] = images[:, 0, 0, 0] = 0
    standing = np.flatnonzero(LinearSession(weight, bias).margins(images, labels) > EPS)
    images[standing[standing % 3 == 0][:lies], 0, 0, 0] = 1
    subject = Subject(
        Lying(weight, bias), "tiny", ("a", "b", "c"), images.shape[1:],
        ImageSet("some", images, labels, np.arange(300)), "", ThreatModel(eps=EPS),
    )  # fmt: skip
    options = VerifyOptions(attacks=("pgd",), fail_under=0.01)
    whole = prepare_case(subject, options).attack(Silent()).outcome
    parts = []
    for number in (1, 2, 3):
        case = prepare_case(subject, options.model_copy(update={"shard": Shard(number, 3)}))
        found = case.attack(Silent())
        counts = {name: getattr(found.outcome, name) for name in COUNTS}
        record = ShardRecord(
            request_sha256=case.request.digest(), circumstances=found.circumstances, attacks=found.outcome.attacks,
            eps_curve=found.outcome.eps_curve, far=found.outcome.far, paired=None, **counts,
        )  # fmt: skip
        parts.append(Part(str(number), case.request, record, found.outcome.evidence, found.gallery))
    merged = add_outcomes(parts, prepare_case(subject, options).request)
    assert (whole.gradient_test, merged.gradient_test.apart_near > 0) == (merged.gradient_test, lies > 0)
    assert ("smoothed-1" in whole.blind_control.by) is smoothed
    assert merged.smoothed_control is None
    seconds = {"seconds": 0.0}
    assert merged.blind_control.model_copy(update=seconds) == whole.blind_control.model_copy(update=seconds)

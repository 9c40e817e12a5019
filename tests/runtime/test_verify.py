import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from runtime import named_data, options
from runtime.attacks import ATTACKS
from runtime.bundle import EVALUATION, Graph
from runtime.cli import main
from runtime.commands import verify
from runtime.console import print_summary
from runtime.errors import BadData
from runtime.images import ImageSet
from runtime.masking import check
from runtime.progress import Silent
from runtime.report import formats
from runtime.report.formats import FORMATS
from runtime.report.words import tone as tone_of
from runtime.report_schema import load_report
from runtime.request_schema import RunRecord
from runtime.spec import Gate
from runtime.suite import run_suite
from runtime.units import Target
from tests.fakes import LinearSession
from tests.runtime.bundles import write_bundle
from tests.tiny import EPS, FORWARD, GRADIENT, bundle_files, graph, linear_task, npz


def edgeproof(*arguments, env=None):
    """Run the command line in this process: exit code, stdout, stderr."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    bundle = write_bundle(folder / "bundle", bundle_files(linear_task()), n=60)
    result = edgeproof("verify", bundle, "--out", folder / "run", "--save-adversarial", "--json")
    assert result.exit_code == 0, result.stderr
    return folder, result


@pytest.fixture
def finished(finished_once, tmp_path):
    """A finished run of the tiny bundle: its directory, a copy, and what it printed."""
    folder, result = finished_once
    return shutil.copytree(folder / "run", tmp_path / "run"), result


@pytest.fixture
def evidence(finished):
    with np.load(finished[0] / "evidence.npz", allow_pickle=False) as file:
        return dict(file)


def test_a_run_leaves_its_files_and_nothing_else(finished_once):
    folder, _ = finished_once
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "run"]
    names = sorted(path.name for path in (folder / "run").iterdir())
    assert names == [
        "evidence.npz", "gallery.npz", "journal.jsonl", "junit.xml", "report.html", "report.json", "run.json",
        "summary.md",
    ]  # fmt: skip


def test_json_on_stdout_is_the_report_and_progress_is_on_stderr(finished):
    out, result = finished
    assert result.stdout.encode() == (out / "report.json").read_bytes()
    assert "pgd: " in result.stderr


def test_the_report_holds_every_field_of_its_schema(finished):
    record = json.loads(finished[1].stdout)
    assert record["schema"] == "edgeproof.report/1"
    assert set(record) == {
        "schema", "verdict", "reasons", "gate", "artifact", "data", "threat_model", "request", "request_sha256", "seed",
        "clean", "attacks", "robust_accuracy", "per_class", "confusion", "eps_curve", "paired", "agreement", "warnings",
        "checks", "lattice", "sequential", "parent_agreement", "device", "software", "started", "seconds",
    }  # fmt: skip
    assert (record["verdict"], record["reasons"]) == ("passed", ["no gate asked for"])
    assert [row["name"] for row in record["attacks"]] == ["fgsm", "pgd", "cw"]
    assert record["warnings"] == []
    states = {check["check"]: check["state"] for check in record["checks"]}
    assert states == {
        "randomised": "quiet", "softmax": "quiet", "zero-gradient": "quiet", "far-from-chance": "quiet",
        "fgsm-over-pgd": "quiet", "pgd-over-aa": "not run", "square-alone": "not run",
        "black-box-only": "quiet", "agreement": "quiet", "no-parent": "quiet",
    }  # fmt: skip
    assert record["artifact"]["authenticated"] is False
    assert record["threat_model"] == {"norm": "linf", "eps": EPS}
    assert record["data"]["n"] == record["clean"]["n"] == 60
    assert set(record["software"]) == {"edgeproof", "numpy", "onnxruntime"}


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


def test_the_run_record_holds_the_request_and_its_digest(finished):
    record = RunRecord.model_validate_json((finished[0] / "run.json").read_bytes())
    assert record.request.digest() == record.request_sha256 == load_report(finished[0]).request_sha256
    assert record.request.attacks[1].settings == {"steps": 10, "step": 0.25}


def test_a_run_is_repeated_to_the_bit(bundle, tmp_path, finished):
    assert edgeproof("verify", bundle, "--out", "again", "--save-adversarial").exit_code == 0
    assert (tmp_path / "again" / "evidence.npz").read_bytes() == (finished[0] / "evidence.npz").read_bytes()
    assert (tmp_path / "again" / "run.json").read_bytes() == (finished[0] / "run.json").read_bytes()


@pytest.mark.parametrize("batch", [1, 7])
def test_the_evidence_does_not_depend_on_the_batch(bundle, tmp_path, evidence, batch):
    assert edgeproof("verify", bundle, "--out", "other", "--batch", batch).exit_code == 0
    with np.load(tmp_path / "other" / "evidence.npz") as other:
        assert set(other) == set(evidence) - {"adversarial"}
        for name in other:
            assert other[name].tobytes() == evidence[name].tobytes(), name


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
    assert "apgd-t needs 4 classes, the model has 3" in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_summary_prints_verdict_reason_figures_and_place(bundle):
    out = edgeproof("verify", bundle, "--out", "run", "--attacks", "clean,pgd", "--n", 20, "--eps", "2/255").stdout
    read = load_report(Path("run"))
    assert out.startswith("passed\n  no gate asked for")
    assert f"{100 * read.attacks[0].accuracy:.1f} %" in out
    assert "95 % interval" in out
    assert "20 images, eps 2/255" in out
    assert out.rstrip().endswith("report: run")
    assert "7 checks found nothing; not run: fgsm-over-pgd, pgd-over-aa, square-alone" in out


def test_where_nothing_was_required_console_and_page_say_so_without_the_colour_of_success(finished, bundle, capsys):
    figure = f"nothing was required of it; robust accuracy {100 * load_report(finished[0]).robust_accuracy.value:.1f} %"
    page = (finished[0] / "report.html").read_text()
    assert figure in page
    assert 'class="verdict" style="--tone: var(--neutral)"' in page
    edgeproof("verify", bundle, "--fail-under", "1%", "--out", "gated")
    gated = Path("gated/report.html").read_text()
    assert "nothing was required of it" not in gated
    assert 'class="verdict" style="--tone: var(--passed)"' in gated
    for out, tone, words in ((finished[0], "neutral", True), (Path("gated"), "passed", False)):
        read = load_report(out)
        assert tone_of(read) == tone
        print_summary(read, out)
        assert (figure in capsys.readouterr().out) is words


def test_a_run_without_attacks_claims_no_robust_accuracy(bundle):
    result = edgeproof("verify", bundle, "--attacks", "clean", "--out", "run")
    assert "nothing was required of it; no attack within eps ran" in result.stdout
    assert load_report(Path("run")).warnings == ()


def test_without_out_a_fresh_directory_is_made(bundle, tmp_path):
    assert edgeproof("verify", bundle, "--attacks", "clean").exit_code == 0
    (made,) = (tmp_path / "reports").iterdir()
    assert made.name.startswith("tiny-fp32-2")


GATES = {
    "low end reached": (["--fail-under", "1%"], 0, "passed"),
    "high end under": (["--fail-under", "99%"], 1, "failed"),
}


@pytest.mark.parametrize(("options", "code", "verdict"), GATES.values(), ids=GATES)
def test_the_gate_decides_the_exit_code(bundle, options, code, verdict):
    result = edgeproof("verify", bundle, *options, "--out", "run", "--attacks", "fgsm", "--json")
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (code, verdict)


def test_an_interval_that_spans_the_gate_is_inconclusive(bundle, finished):
    between = load_report(finished[0]).robust_accuracy.value
    assert edgeproof("verify", bundle, "--fail-under", between, "--out", "second").exit_code == 5


def test_the_manifests_gate_holds_where_the_command_line_is_silent(tmp_path, files):
    strict = write_bundle(tmp_path / "strict", files, n=60, gate=Gate(fail_under=0.99, max_drop=0.01))
    assert edgeproof("verify", strict, "--attacks", "fgsm", "--out", "a").exit_code == 1
    assert edgeproof("verify", strict, "--attacks", "fgsm", "--fail-under", "1%", "--out", "b").exit_code == 0


def test_a_run_of_few_images_may_be_judged_by_no_gate_and_its_command_says_so(tmp_path, files):
    strict = write_bundle(tmp_path / "strict", files, n=60, gate=Gate(fail_under=0.99, max_drop=0.01))
    result = edgeproof("verify", strict, "--no-gate", "--n", 9, "--attacks", "fgsm", "--out", "run")
    assert (result.exit_code, result.stdout.splitlines()[:2]) == (0, ["passed", "  no gate asked for"])
    read = load_report(Path("run"))
    assert read.gate == Gate()
    again = edgeproof("verify", strict, *shlex.split(read.request.command)[3:], "--out", "again")
    assert again.exit_code == 0
    assert Path("again/run.json").read_bytes() == Path("run/run.json").read_bytes()


def test_a_gate_on_the_drop_asks_nothing_of_the_parent_precision_alone(tmp_path, files):
    fp32 = write_bundle(tmp_path / "fp32", files, n=60, gate=Gate(max_drop=0.01))
    assert edgeproof("verify", fp32, "--attacks", "fgsm", "--out", "a").exit_code == 0
    graphs = {"int8": Graph(forward="model.fp32.onnx", gradient="model.fp32.grad.onnx", opset=18)}
    int8 = write_bundle(tmp_path / "int8", files, n=60, gate=Gate(max_drop=0.01), graphs=graphs, ships="int8")
    result = edgeproof("verify", int8, "--attacks", "fgsm", "--out", "b")
    assert result.exit_code == 5
    assert "nothing to compare with" in result.stdout
    result = edgeproof("verify", int8, "--attacks", "fgsm", "--max-drop", "1%", "--out", "c")
    assert result.exit_code == 2
    assert "--max-drop has nothing to compare int8 with\nhint: --against DIR" in result.stderr
    assert not Path("c").exists()


def test_a_drop_is_measured_from_the_bundles_own_fp32_where_no_other_run_is_named(tmp_path, files):
    graphs = {
        name: Graph(forward="model.fp32.onnx", gradient="model.fp32.grad.onnx", opset=18) for name in ("fp32", "int8")
    }
    both = write_bundle(tmp_path / "both", files, n=60, graphs=graphs, ships="int8", gate=Gate(max_drop=0.5))
    result = edgeproof("verify", both, "--attacks", "fgsm", "--out", "run", "--json")
    paired = json.loads(result.stdout)["paired"]
    assert result.exit_code == 0, result.stderr
    assert "first fp32, to measure the drop from" in result.stderr
    assert "tiny fp32 on ort/cpu" in paired["against"]
    assert (paired["only_this"], paired["only_that"]) == (0, 0)
    assert load_report(Path("run-fp32")).gate == Gate()
    result = edgeproof("verify", both, "--attacks", "fgsm", "--out", "run", "--resume")
    assert "run-fp32 is finished already" in result.stderr
    for part in (["--shard", "1/2"], ["--until-decided"]):
        result = edgeproof("verify", both, "--attacks", "fgsm", *part, "--out", "part")
        assert (result.exit_code, "--against DIR" in result.stderr) == (2, True)


def test_the_fp32_artifact_has_nothing_to_drop_from(bundle):
    result = edgeproof("verify", bundle, "--attacks", "fgsm", "--max-drop", "1%", "--out", "run")
    read = load_report(Path("run"))
    assert (result.exit_code, read.reasons) == (0, ("this is the fp32 artifact: nothing to drop from",))
    assert read.gate == Gate(max_drop=0.01)
    assert tone_of(read) == "neutral"
    result = edgeproof("verify", bundle, "--attacks", "fgsm", "--max-drop", "1%", "--fail-under", "99%", "--out", "b")
    assert result.exit_code == 1


def test_a_run_against_itself_drops_by_nothing_within_its_interval(bundle, finished):
    result = edgeproof("verify", bundle, "--against", finished[0], "--max-drop", "50%", "--out", "second", "--json")
    paired = json.loads(result.stdout)["paired"]
    assert result.exit_code == 0
    assert (paired["only_this"], paired["only_that"], paired["difference"]) == (0, 0, 0)
    assert paired["ci95"][0] < 0 < paired["ci95"][1]
    assert paired["mcnemar_p"] == 1
    assert "tiny fp32 on ort/cpu" in paired["against"]


def test_a_weaker_artifact_fails_against_the_better_one(tmp_path, task, files, finished):
    constant = task[0] * np.float32(1e-4), np.float32([1, 0, 0])
    weaker = {**files, "model.fp32.onnx": graph(FORWARD, *constant), "model.fp32.grad.onnx": graph(GRADIENT, *constant)}
    other = write_bundle(tmp_path / "weaker", weaker, n=60)
    result = edgeproof("verify", other, "--against", finished[0], "--max-drop", "1%", "--out", "second", "--json")
    robust = load_report(finished[0]).robust_accuracy.value
    paired = json.loads(result.stdout)["paired"]
    assert result.exit_code == 1
    assert paired["difference"] == pytest.approx((task[3] == 0).mean() - robust)
    assert paired["ci95"][1] < -0.01


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
    outcome = run_suite(target, ["fgsm"], eps=EPS, seed=0, keep_all=False, progress=Silent())
    outcome.evidence.blind["own"][:zero] = True
    assert [each.check for each in check(outcome, classes=3, precision="fp32") if each.state == "found"] == [
        "zero-gradient"
    ] * blocks


def test_runs_of_different_size_are_paired_on_the_images_they_share(bundle, finished):
    result = edgeproof("verify", bundle, "--n", 25, "--against", finished[0], "--out", "second", "--json")
    paired = json.loads(result.stdout)["paired"]
    assert sum(paired[cell] for cell in ("both", "only_this", "only_that", "neither")) == 25


@pytest.mark.parametrize("options", [["--eps", "0.02"], ["--attacks", "pgd"], ["--data", "other.npz"]])
def test_a_run_of_another_request_is_no_comparison(bundle, finished, options):
    other = np.zeros((60, 1, 4, 4), np.uint8)
    np.savez("other.npz", x=other, y=np.zeros(60, int))
    result = edgeproof("verify", bundle, *options, "--against", finished[0], "--out", "second")
    assert result.exit_code == 3
    assert "the run to compare with does not fit: " in result.stderr


OTHERS = {"index": "shares no images", "label": "has other labels"}


@pytest.mark.parametrize("name", OTHERS)
def test_a_comparison_that_cannot_be_made_is_refused_before_the_attacks(bundle, finished, evidence, name):
    del evidence["adversarial"]
    np.savez(finished[0] / "evidence.npz", **evidence | {name: evidence[name] + 100})
    result = edgeproof("verify", bundle, "--against", finished[0], "--out", "second")
    assert result.exit_code == 3, result.stderr
    assert OTHERS[name] in result.stderr
    assert "clean:" not in result.stderr
    assert not Path("second").exists()


UNEQUAL = {
    "unequal lengths": {"label": np.zeros(3, int)},
    "no axis": {"index": np.int64(3), "label": np.int64(0), "broken_by": np.int64(-1)},
    "two axes": {"index": np.zeros((60, 2), int)},
    "an array missing": None,
}


@pytest.mark.parametrize("arrays", UNEQUAL.values(), ids=UNEQUAL)
def test_evidence_that_does_not_hold_together_is_no_comparison(bundle, finished, evidence, arrays):
    del evidence["adversarial"]
    np.savez(finished[0] / "evidence.npz", **({"index": np.arange(3)} if arrays is None else evidence | arrays))
    result = edgeproof("verify", bundle, "--against", finished[0], "--out", "second")
    assert result.exit_code == 3, result.stderr
    assert "evidence.npz cannot be read" in result.stderr


def test_evidence_that_is_a_single_array_is_no_comparison(bundle, finished):
    with (finished[0] / "evidence.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert edgeproof("verify", bundle, "--against", finished[0], "--out", "second").exit_code == 3


@pytest.mark.parametrize("name", ["report.json", "evidence.npz"])
def test_a_damaged_run_is_no_comparison(bundle, finished, name):
    (finished[0] / name).write_text('{"schema": "edgeproof.report/9"}')
    result = edgeproof("verify", bundle, "--against", finished[0], "--out", "second")
    assert result.exit_code == 3
    assert name in result.stderr


USAGE = {
    "unknown attack": ["--attacks", "pgd,magic"],
    "unknown backend": ["--backend", "magic"],
    "a provider of another backend": ["--backend", "tensorrt", "--provider", "cuda"],
    "TF32 on a CPU": ["--tf32"],
    "unknown provider": ["--provider", "tpu"],
    "unparsable eps": ["--eps", "8/0"],
    "eps above one": ["--eps", "8"],
    "no images": ["--n", "0"],
    "negative seed": ["--seed", "-1"],
    "percent above 100": ["--fail-under", "450%"],
    "no name for the run directory": ["--out", ""],
    "no name for the data": ["--data", ""],
    "gate without attack": ["--attacks", "clean", "--fail-under", "10%"],
    "a gate and none": ["--no-gate", "--fail-under", "10%"],
    "early stop without a gate": ["--no-gate", "--until-decided"],
    "comparison that is not there": ["--against", "nowhere"],
    "data that is not there": ["--data", "nowhere.npz"],
    "unknown option": ["--colour"],
}


@pytest.mark.parametrize("options", USAGE.values(), ids=USAGE)
def test_a_wrong_command_line_is_refused_before_any_work(bundle, tmp_path, options):
    result = edgeproof("verify", bundle, "--out", "run", *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_is_not_there_is_a_usage_error():
    assert edgeproof("verify", "nowhere").exit_code == 2


def test_the_backend_can_be_set_by_the_environment(bundle):
    assert edgeproof("verify", bundle, env={"EDGEPROOF_BACKEND": "magic"}).exit_code == 2


def test_an_out_that_cannot_be_made_is_refused_before_the_attacks(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    result = edgeproof("verify", bundle, "--out", "file/report")
    assert result.exit_code == 4
    assert "cannot be written to" in result.stderr
    assert "clean:" not in result.stderr


def test_a_place_that_lets_nobody_write_is_refused_before_the_attacks(bundle):
    result = edgeproof("verify", bundle, "--out", "/proc/report")
    assert result.exit_code == 4
    assert "/proc cannot be written to" in result.stderr
    assert "clean:" not in result.stderr


def test_an_empty_folder_that_one_stands_in_is_a_run_directory_like_any_other(bundle, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert edgeproof("verify", bundle, "--attacks", "clean", "--out", ".").exit_code == 0
    assert (tmp_path / "here" / "report.json").is_file()


def test_an_out_that_holds_anything_is_refused_and_kept(bundle, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    assert edgeproof("verify", bundle, "--out", "run").exit_code == 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def changed(files, **arrays):
    base = {"images": np.zeros((60, 1, 4, 4), np.uint8), "labels": np.zeros(60, int), "ids": np.arange(60)}
    return {**files, EVALUATION: npz(**(base | arrays))}


BAD_FILES = {
    "labels out of range": lambda files: changed(files, labels=np.full(60, 3)),
    "NaN": lambda files: changed(files, images=np.full((60, 1, 4, 4), np.nan, np.float32)),
    "other image shape": lambda files: changed(files, images=np.zeros((60, 1, 5, 5), np.uint8)),
    "truncated graph": lambda files: {**files, "model.fp32.onnx": files["model.fp32.onnx"][:-30]},
    "truncated gradient": lambda files: {**files, "model.fp32.grad.onnx": files["model.fp32.grad.onnx"][:-30]},
    "more classes than the model": lambda files: {
        **files,
        "model.fp32.onnx": graph(FORWARD, np.ones((4, 16), np.float32), np.ones(4, np.float32)),
    },
}


@pytest.mark.parametrize("damage", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_content_ends_with_3_one_error_and_nothing_written(tmp_path, files, damage):
    bundle = write_bundle(tmp_path / "bad", damage(files), n=60)
    result = edgeproof("verify", bundle, "--out", "run")
    assert result.exit_code == 3, result.stderr
    assert "\nerror: " in "\n" + result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


@pytest.mark.parametrize("options", [["--precision", "int8"], ["--n", "61"]])
def test_what_the_bundle_does_not_hold_is_bad_input(bundle, options):
    result = edgeproof("verify", bundle, *options, "--out", "run")
    assert result.exit_code == 3
    assert "hint: " in result.stderr


def test_a_changed_byte_and_a_missing_manifest_are_bad_input(bundle):
    path = bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert edgeproof("verify", bundle).exit_code == 3
    (bundle / "manifest.json").unlink()
    assert edgeproof("verify", bundle).exit_code == 3


@pytest.mark.parametrize(("field", "value"), [("sha256", "1" * 64), ("n", 59)])
def test_evaluation_images_other_than_the_manifests_are_bad_input(bundle, rewrite, field, value):
    rewrite(bundle, "evaluation", field, value=value)
    result = edgeproof("verify", bundle, "--out", "run")
    assert result.exit_code == 3
    assert f"{bundle / EVALUATION}: " in result.stderr
    assert "manifest" in result.stderr
    assert "hint: " in result.stderr


def test_damaged_evaluation_images_are_named_with_their_bundle(tmp_path, files):
    damaged = write_bundle(tmp_path / "damaged", {**files, EVALUATION: b"PK nothing"}, n=60)
    result = edgeproof("verify", damaged, "--out", "run")
    assert result.exit_code == 3
    assert f"{damaged / EVALUATION}" in result.stderr.splitlines()[0]


def test_the_stored_bundle_names_its_own_images():
    stored = Path(__file__).parents[1] / "data" / "tiny-bundle"
    assert edgeproof("verify", stored, "--attacks", "fgsm", "--out", "run").exit_code == 0


def test_an_artifact_that_answers_nan_is_inconclusive(tmp_path, task, files):
    broken = graph(FORWARD, np.full_like(task[0], np.nan), task[1])
    bundle = write_bundle(tmp_path / "nan", {**files, "model.fp32.onnx": broken}, n=60)
    result = edgeproof("verify", bundle, "--out", "run")
    assert result.exit_code == 5
    assert "image 0: the logit is NaN" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_bundle_without_a_gradient_graph_is_refused_before_any_pass_unless_none_is_asked_for(tmp_path, files):
    graphs = {"fp32": Graph(forward="model.fp32.onnx", gradient=None, opset=18)}
    del files["model.fp32.grad.onnx"]
    bundle = write_bundle(tmp_path / "bundle", files, n=60, graphs=graphs)
    result = edgeproof("verify", bundle, "--attacks", "square,pgd", "--out", "run")
    assert result.exit_code == 3, result.stderr
    assert "pgd needs the gradient" in result.stderr
    assert "--gradient none" in result.stderr
    assert "clean:" not in result.stderr
    assert not Path("run").exists()
    assert edgeproof("verify", bundle, "--attacks", "clean", "--out", "run").exit_code == 0


def test_a_missing_provider_is_the_environments_fault(bundle, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert edgeproof("verify", bundle, "--provider", "cuda").exit_code == 4


def test_without_the_report_extra_the_page_is_left_out_and_said_so(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    result = edgeproof("verify", bundle, "--out", "run", "--attacks", "clean")
    assert result.exit_code == 0
    assert "no report.html: jinja2 is not installed" in result.stderr
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_failure_while_writing_leaves_no_report_and_loses_no_work(bundle, tmp_path, monkeypatch):
    def fail(account):
        raise BadData("the disk is full")

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, "html", replace(FORMATS["html"], render=fail))
        assert edgeproof("verify", bundle, "--out", "run").exit_code == 3
    assert not (tmp_path / "run" / "report.json").exists()
    result = edgeproof("verify", bundle, "--out", "run", "--resume")
    assert result.exit_code == 0
    assert "pgd: 50 of 50 images, from before" in result.stderr


def test_images_of_ones_own_are_judged_in_place_of_the_bundles(bundle, task, tmp_path):
    *_, images, labels = task
    np.savez("own.npz", x=images[:12].transpose(0, 2, 3, 1), y=labels[:12])
    result = edgeproof("verify", bundle, "--data", "own.npz", "--layout", "nhwc", "--out", "run", "--json")
    assert json.loads(result.stdout)["data"]["name"] == "own"
    assert json.loads(result.stdout)["clean"]["n"] == 12


def test_the_command_in_the_report_repeats_the_run(bundle, task):
    *_, images, labels = task
    np.savez("my own set.npz", x=images[:12].transpose(0, 2, 3, 1), y=labels[:12])
    options = ["--data", "my own set.npz", "--layout", "nhwc", "--data-root", "my data", "--save-adversarial"]
    gate = ["--attacks", "fgsm", "--n", 9, "--seed", 3, "--fail-under", "1%"]
    first = edgeproof("verify", bundle, *options, *gate, "--out", "first")
    command = shlex.split(load_report(Path("first")).request.command)
    assert command[:3] == ["edgeproof", "verify", "BUNDLE"]
    again = edgeproof("verify", bundle, *command[3:], "--out", "again")
    assert again.exit_code == first.exit_code == 0
    assert Path("again/run.json").read_bytes() == Path("first/run.json").read_bytes()
    assert Path("again/evidence.npz").read_bytes() == Path("first/evidence.npz").read_bytes()


def test_the_command_in_the_report_says_nothing_that_is_the_default(finished):
    command = load_report(finished[0]).request.command
    assert "--save-adversarial" in command
    for option in ("--data", "--layout", "--against", "--fail-under"):
        assert option not in command


def test_a_set_known_by_name_is_read_from_the_data_root(bundle, task, monkeypatch, tmp_path):
    *_, images, labels = task
    roots = []

    def known(root):
        roots.append(root)
        return ImageSet("known/test", images, labels, np.arange(60))

    entry = SimpleNamespace(name="known", extras=["train"], load=lambda: known)
    monkeypatch.setattr(named_data, "entry_points", lambda group: [entry])
    options = ["--data", "known", "--attacks", "clean"]
    assert edgeproof("verify", bundle, *options, "--out", "a").exit_code == 0
    assert edgeproof("verify", bundle, *options, "--data-root", tmp_path / "sets", "--out", "b").exit_code == 0
    assert roots == [Path("data"), tmp_path / "sets"]


@pytest.mark.parametrize("option", verify.params[1:], ids=lambda option: option.name)
def test_every_option_explains_itself_in_a_sentence(option):
    sentence = option.help.partition("  [default")[0]
    assert len(sentence.split()) > 3
    assert sentence.endswith(".")
    assert not sentence.startswith("Of ")


def test_the_shared_options_suit_a_run_as_well_as_a_bundle():
    shared = options.attack_options(lambda: None).__click_params__
    assert not [option.name for option in shared if "[default: the bundle's]" in option.help]


def test_an_interrupt_ends_with_130_keeps_what_is_done_and_says_how_to_go_on(tmp_path, task, files):
    labels = np.tile(task[3], 400)
    images = np.tile(np.round(task[2] * 255).astype(np.uint8), (400, 1, 1, 1))
    large = {**files, EVALUATION: npz(images=images, labels=labels, ids=np.arange(len(labels)))}
    bundle = write_bundle(tmp_path / "large", large, n=len(labels))
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "verify", str(bundle)]
    with subprocess.Popen(
        [*command, "--out", "run", "--batch", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits it as ignored
    ) as process:
        try:
            first = process.stderr.readline()
            time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert first.startswith("clean: ")
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "interrupted"
    assert "Traceback" not in rest
    assert out == ""
    assert "to go on: the same command with --out run --resume" in rest
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "journal.jsonl", "units"}

"""`verify` on the tiny bundle: what a run leaves, says, and repeats."""

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.bundle.manifest import EVALUATION
from runtime.checks.masking import check
from runtime.commands.verify import attack_options as options
from runtime.commands.verify import verify
from runtime.errors import BadData
from runtime.images import find
from runtime.images.image_set import ImageSet
from runtime.progress import Silent
from runtime.records.report import load_report
from runtime.records.request import RunRecord
from runtime.report import formats
from runtime.report.console import print_summary
from runtime.report.formats import FORMATS
from runtime.report.phrases import tone as tone_of
from runtime.suite.campaign import run_suite
from runtime.suite.units import Target
from tests.command_line import edgeproof
from tests.fakes import LinearSession, artifact
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import EPS, FORWARD, GRADIENT, graph, npz

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


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
    assert [each.check for each in check(outcome, classes=3, artifact=artifact()) if each.state == "found"] == [
        "zero-gradient"
    ] * blocks


def test_the_backend_can_be_set_by_the_environment(bundle):
    assert edgeproof("verify", bundle, env={"EDGEPROOF_BACKEND": "magic"}).exit_code == 2


def test_an_empty_folder_that_one_stands_in_is_a_run_directory_like_any_other(bundle, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert edgeproof("verify", bundle, "--attacks", "clean", "--out", ".").exit_code == 0
    assert (tmp_path / "here" / "report.json").is_file()


def test_an_artifact_that_answers_nan_is_inconclusive(tmp_path, task, files):
    broken = graph(FORWARD, np.full_like(task[0], np.nan), task[1])
    bundle = write_bundle(tmp_path / "nan", {**files, "model.fp32.onnx": broken}, n=60)
    result = edgeproof("verify", bundle, "--out", "run")
    assert result.exit_code == 5
    assert "image 0: the logit is NaN" in result.stderr
    assert not (tmp_path / "run").exists()


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
    monkeypatch.setattr(find, "entry_points", lambda group: [entry])
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

"""Verdicts of judges that are processes: honest ones pass, and of those that make a model look robust none does."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.files import sha256
from tests.command_line import edgeproof
from tests.paths import PROGRAM
from tests.runtime.external.test_examples import write
from tests.runtime.external.test_session import runs

LIAR = Path(__file__).with_name("liar.py")
GATE = ("--fail-under", "1%")


@pytest.fixture
def liar(task, tmp_path):
    """Return what makes the command of a judge that lies in a way."""
    weight, bias, images, labels = task
    np.savez(tmp_path / "linear.npz", weight=weight, bias=bias, images=np.round(images * 255) / 255, labels=labels)
    words = [sys.executable, str(LIAR), str(tmp_path / "linear.npz")]
    return lambda how, *more: shlex.join([*words, how, *map(str, more)])


@pytest.fixture
def judged(bundle, tmp_path):
    """Return what judges the tiny bundle by a command: the result, and the report where there is one."""

    def judge(command, *options, attacks="fgsm,pgd,cw", out="run"):
        out = tmp_path / out
        result = edgeproof("verify", bundle, "--judge-command", command, "--attacks", attacks, "--out", out, *options)
        report = out / "report.json"
        return result, json.loads(report.read_text()) if report.exists() else None

    return judge


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def found(report):
    return {warning["check"]: warning["message"] for warning in report["warnings"] if warning["blocking"]}


def test_an_honest_judge_passes_and_breaks_the_images_that_onnx_runtime_breaks(judged, liar, bundle, tmp_path):
    result, _ = judged(liar("honest"), *GATE)
    assert result.exit_code == 0, result.output
    edgeproof("verify", bundle, "--attacks", "fgsm,pgd,cw", "--out", tmp_path / "ort")
    mine, its = (arrays(tmp_path / run / "evidence.npz") for run in ("run", "ort"))
    assert np.array_equal(mine["broken_by"], its["broken_by"])
    assert np.array_equal(mine["adversarial_prediction"], its["adversarial_prediction"])


def test_report_request_and_evidence_name_the_judge(judged, liar, tmp_path):
    _, report = judged(liar("honest"), attacks="fgsm")
    judge = report["artifact"]["judge_command"]
    assert (judge["name"], judge["version"], judge["images"]) == ("liar", "1", "float32")
    assert judge["files"][str(LIAR)] == sha256(LIAR.read_bytes())
    assert report["request"]["judge_command"] == judge
    assert (report["artifact"]["backend"], report["artifact"]["provider"]) == ("command", "liar")
    assert (report["artifact"]["gradient_backend"], report["artifact"]["gradient_provider"]) == ("ort", "cpu")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["request"]["judge_command"] == judge
    evidence = arrays(tmp_path / "run" / "evidence.npz")
    assert str(evidence["judge"]) == "command/liar"
    assert str(evidence["judge_command"]) == judge["command"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert judge["files"][str(LIAR)] in page
    assert "own, by ort/cpu" in page


def test_the_recorded_command_repeats_the_run(judged, liar, bundle, tmp_path):
    _, report = judged(liar("honest"), attacks="fgsm")
    words = shlex.split(report["request"]["command"])[1:]
    again = tmp_path / "again"
    result = edgeproof(*[bundle if word == "BUNDLE" else word for word in words], "--out", again)
    assert result.exit_code == 0, result.output
    assert json.loads((again / "report.json").read_text())["request_sha256"] == report["request_sha256"]


LIES = {
    "another model": "agreement",
    "another model, said to be quantised": "agreement",
    "cached": "gradient-holds",
    "forgiving": "agreement",
    "counting": "agreement",
    "by distance": "agreement",
    "a little, said to be quantised": "agreement",
    "late": "agreement",
    "shifted": "agreement",
    "thresholded": "agreement",
    "by batch": "randomised",
    "by order": "randomised",
    "at random": "randomised",
    "softmax": "softmax",
}


@pytest.mark.parametrize("how", LIES)
def test_a_judge_that_makes_its_model_look_robust_gets_no_verdict(how, judged, liar):
    result, report = judged(liar(how), attacks="pgd")
    assert result.exit_code == 5, result.output
    assert LIES[how] in found(report), found(report)


def test_a_lie_while_shards_are_attacked_shows_when_they_are_merged(bundle, liar, tmp_path):
    shards = [tmp_path / f"shard-{number}" for number in (1, 2)]
    for number, out in enumerate(shards, 1):
        options = ("--shard", f"{number}/2", "--attacks", "pgd", "--out", out)
        result = edgeproof("verify", bundle, "--judge-command", liar("counting"), *options)
        assert result.exit_code == 0, result.output
    result = edgeproof("merge", *shards, "--out", tmp_path / "whole")
    assert result.exit_code == 5, result.output
    assert "agreement" in found(json.loads((tmp_path / "whole" / "report.json").read_text()))


def test_an_answer_that_is_no_number_leaves_no_verdict(judged, liar):
    result, report = judged(liar("NaN"))
    assert (result.exit_code, report) == (5, None)
    assert "the logit of image 0 is NaN or infinite" in result.stderr


def asked(path):
    """Return every image that a judge was asked, as bytes of its own type."""
    images = set()
    with path.open("rb") as file:
        while file.tell() < path.stat().st_size:
            images |= {image.tobytes() for image in np.load(file)}
    return images


@pytest.mark.parametrize(("how", "eps"), [("honest", "0.01"), ("bytes", "3/255")])
def test_each_point_that_is_kept_was_judged_and_each_clean_image_as_it_is(how, eps, judged, liar, tmp_path, bundle):
    seen = tmp_path / "seen"
    result, report = judged(liar(how, seen), "--eps", eps, "--save-adversarial", attacks="pgd")
    assert result.exit_code == 0, result.output
    evidence, stored = arrays(tmp_path / "run" / "evidence.npz"), arrays(bundle / "evaluation.npz")["images"]
    points = evidence["adversarial"]
    clean = stored.astype(np.float32) / np.float32(255)
    assert np.abs(points.astype(np.float64) - clean).max() <= report["threat_model"]["eps"] + 1e-6
    if how == "bytes":
        assert np.abs(255 * points - np.rint(255 * points)).max() < 1e-4
        points, clean = (np.rint(255 * x).astype(np.uint8) for x in (points, clean))
        assert np.array_equal(clean, stored)
    judged_at = asked(seen)
    assert {image.tobytes() for image in clean} <= judged_at
    assert {image.tobytes() for image in points} <= judged_at
    assert (evidence["broken_by"] >= 0).any()


@pytest.mark.parametrize("eps", ["0.01", "1.5/255"])
def test_bytes_are_not_judged_at_an_eps_between_two_of_them(eps, judged, liar):
    result, report = judged(liar("bytes"), "--eps", eps)
    assert (result.exit_code, report) == (2, None)
    assert "a pixel can move only by a whole number of 1/255" in result.stderr


def test_bytes_are_not_judged_on_images_that_were_none(judged, liar, task, tmp_path):
    _, _, images, labels = task
    np.savez(tmp_path / "floats.npz", x=images, y=labels)
    result, _ = judged(liar("bytes"), "--eps", "3/255", "--data", tmp_path / "floats.npz")
    assert result.exit_code == 3
    assert "keep them as they were stored" in result.stderr


@pytest.mark.parametrize("name", ["onnxruntime", "litert", "litert-int8", "ncnn"])
def test_the_examples_judge_the_bundle_of_their_model(name, judged, task, tmp_path):
    command = write(name, task, tmp_path)
    result, report = judged(command, attacks="pgd")
    assert result.exit_code == 0, result.output
    assert not found(report)
    assert report["artifact"]["facts"]["quantised"] is (name == "litert-int8")
    assert {"square"} & {row["name"] for row in report["attacks"]} == ({"square"} if name == "litert-int8" else set())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--backend", "tensorrt"), "in place of --backend tensorrt"),
        (("--provider", "cuda"), "leave out --backend, --provider"),
        (("--gradient-backend", "command"), "computes no gradient"),
        (("--on", "ort"), "--on does not name command"),
        (("--precision", "fp32,int8"), "runs one model"),
    ],
)
def test_what_a_command_cannot_be_beside_is_refused(options, words, judged, liar):
    result, _ = judged(liar("honest"), *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_command_is_compared_with_an_engine(bundle, liar, tmp_path):
    options = ("--on", "ort:cpu,command", "--judge-command", liar("honest"), "--attacks", "fgsm", "--json")
    result = edgeproof("verify", bundle, *options, "--out", tmp_path / "both")
    assert result.exit_code == 0, result.stderr
    runs = json.loads(result.stdout)["runs"]
    assert [run["backend"] for run in runs] == ["ort", "command"]
    assert [run["gradient_backend"] for run in runs] == [None, "ort"]
    mine, its = (arrays(tmp_path / "both" / name / "evidence.npz") for name in directories(tmp_path / "both"))
    assert np.array_equal(mine["broken_by"], its["broken_by"])


def directories(path):
    return sorted(each.name for each in path.iterdir() if each.is_dir())


def test_a_backend_of_commands_needs_one(bundle):
    result = edgeproof("verify", bundle, "--backend", "command")
    assert result.exit_code == 2
    assert "--judge-command" in result.stderr


def test_a_run_does_not_go_on_with_a_file_that_changed(judged, liar, tmp_path):
    weights = tmp_path / "linear.npz"
    judged(liar("honest"), attacks="fgsm")
    assert judged(liar("honest"), "--resume", attacks="fgsm")[0].exit_code == 0
    np.savez(weights, **arrays(weights), more=0)
    result, _ = judged(liar("honest"), "--resume", attacks="fgsm")
    assert result.exit_code == 3
    assert "judge_command" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_edgeproof_leaves_no_judge(number, bundle, tmp_path):
    pids = tmp_path / "pids"
    command = shlex.join(["sh", "-c", f"echo $$ > {pids}; exec sleep 600"])
    process = subprocess.Popen(
        [*PROGRAM, "verify", str(bundle), "--judge-command", command, "--out", str(tmp_path / "out")],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"EDGEPROOF_STATE": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits it as ignored
    )
    try:
        deadline = time.monotonic() + 120
        while not (pids.exists() and pids.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        judge = int(pids.read_text())
        process.send_signal(number)
        process.wait(timeout=60)
        assert process.returncode == 130
        assert not runs(judge)
    finally:
        process.kill()
        process.wait()

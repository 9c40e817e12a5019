"""Gates of `verify`: what decides them, and what a run may be compared with."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from runtime.bundle.manifest import Graph
from runtime.images.image_set import ImageSet
from runtime.records.report import load_report
from runtime.report.phrases import verdict_of
from runtime.spec import Gate, ThreatModel
from runtime.terminal.progress import Silent
from runtime.verdict.case import verify
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, GRADIENT, HALVED, SHAPE, graph

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


GATES = {
    "low end reached": (["--fail-under", "1%"], 0, "passed"),
    "high end under": (["--fail-under", "99%"], 1, "failed"),
}


@pytest.mark.parametrize(("options", "code", "verdict"), GATES.values(), ids=GATES)
def test_the_gate_decides_the_exit_code(bundle, options, code, verdict):
    result = edgeproof("verify", bundle, *options, "--out", "run", "--json")
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (code, verdict)


def test_an_interval_that_spans_the_gate_is_inconclusive(bundle, finished):
    between = load_report(finished[0]).robust_accuracy.value
    assert edgeproof("verify", bundle, "--fail-under", between, "--out", "second").exit_code == 5


def test_the_manifests_gate_holds_where_the_command_line_is_silent(tmp_path, files):
    strict = write_bundle(tmp_path / "strict", files, n=60, gate=Gate(fail_under=0.99, max_drop=0.01))
    assert edgeproof("verify", strict, "--attacks", "fgsm", "--out", "a").exit_code == 1
    assert edgeproof("verify", strict, "--fail-under", "1%", "--out", "b").exit_code == 0


def test_a_run_of_few_images_may_be_judged_by_no_gate_and_its_command_says_so(tmp_path, files):
    strict = write_bundle(tmp_path / "strict", files, n=60, gate=Gate(fail_under=0.99, max_drop=0.01))
    result = edgeproof("verify", strict, "--no-gate", "--n", 9, "--attacks", "fgsm", "--out", "run")
    assert (result.exit_code, result.stdout.splitlines()[:2]) == (0, ["measured", "  no gate: nothing to pass or fail"])
    read = load_report(Path("run"))
    assert read.gate == Gate()
    again = edgeproof("verify", strict, *shlex.split(read.request.command)[3:], "--out", "again")
    assert again.exit_code == 0
    assert Path("again/run.json").read_bytes() == Path("run/run.json").read_bytes()


def test_a_gate_on_the_drop_asks_nothing_of_the_parent_precision_alone(tmp_path, files, task):
    fp32 = write_bundle(tmp_path / "fp32", files, n=60, gate=Gate(max_drop=0.01))
    result = edgeproof("verify", fp32, "--attacks", "fgsm", "--out", "a")
    read = load_report(Path("a"))
    assert (result.exit_code, read.reasons, verdict_of(read)) == (0, ("no gate: nothing to pass or fail",), "measured")
    assert "the gate on the drop of robust accuracy is ignored for fp32" in result.stderr
    again = edgeproof("verify", fp32, *shlex.split(read.request.command)[3:], "--out", "again")
    assert (again.exit_code, Path("again/run.json").read_bytes()) == (0, Path("a/run.json").read_bytes())
    files["model.fp16.onnx"] = graph(HALVED, *task[:2])
    graphs = {"fp16": Graph(forward="model.fp16.onnx", gradient="model.fp32.grad.onnx", opset=18)}
    fp16 = write_bundle(tmp_path / "fp16", files, n=60, gate=Gate(max_drop=0.01), graphs=graphs, ships="fp16")
    result = edgeproof("verify", fp16, "--attacks", "fgsm", "--out", "b")
    assert result.exit_code == 5
    assert "nothing to compare with" in result.stdout
    result = edgeproof("verify", fp16, "--attacks", "fgsm", "--max-drop", "1%", "--out", "c")
    assert result.exit_code == 2
    assert "--max-drop has nothing to compare fp16 with\nhint: --against DIR" in result.stderr
    assert not Path("c").exists()


def test_a_drop_is_measured_from_the_bundles_own_fp32_where_no_other_run_is_named(tmp_path, files, task):
    files["model.fp16.onnx"] = graph(HALVED, *task[:2])
    graphs = {
        name: Graph(forward=f"model.{name}.onnx", gradient="model.fp32.grad.onnx", opset=18)
        for name in ("fp32", "fp16")
    }
    both = write_bundle(tmp_path / "both", files, n=60, graphs=graphs, ships="fp16", gate=Gate(max_drop=0.5))
    result = edgeproof("verify", both, "--out", "run", "--json")
    paired = json.loads(result.stdout)["paired"]
    assert result.exit_code == 0, result.stderr
    assert "verifying fp32 first, as the baseline for --max-drop" in result.stderr
    assert "tiny fp32 on ort/cpu" in paired["against"]
    assert (paired["only_this"], paired["only_that"]) == (0, 0)
    assert load_report(Path("run-fp32")).gate == Gate()
    result = edgeproof("verify", both, "--out", "run", "--resume")
    assert "run-fp32 is already finished" in result.stderr
    for part in (["--shard", "1/2"], ["--until-decided"]):
        result = edgeproof("verify", both, "--attacks", "fgsm", *part, "--out", "part")
        assert (result.exit_code, "--against DIR" in result.stderr) == (2, True)


def test_a_drop_asked_for_by_hand_is_refused_where_there_is_nothing_to_drop_from(bundle):
    """A pass would say that a comparison was made."""
    for more in ([], ["--fail-under", "1%"]):
        result = edgeproof("verify", bundle, "--attacks", "fgsm", "--max-drop", "1%", *more, "--out", "run")
        assert result.exit_code == 2
        assert "--max-drop has nothing to compare fp32 with\nhint: --against DIR" in result.stderr
        assert not Path("run").exists()


def test_a_drop_is_not_asked_of_fp32_by_whoever_calls_verify_from_python_either(task):
    """As a study does, with the gate of its recipe."""
    weight, bias, images, labels = task
    data = ImageSet("sixty", images, labels, np.arange(len(labels)))
    subject = Subject(
        LinearSession(weight, bias),
        "tiny",
        ("a", "b", "c"),
        SHAPE,
        data,
        "",
        ThreatModel(eps=0.01),
        Gate(max_drop=0.01),
    )
    report = verify(subject, VerifyOptions(attacks=("fgsm",)), Silent()).report
    assert report.threat_model == ThreatModel(eps=0.01)
    assert (report.verdict, report.gate, report.reasons) == ("measured", Gate(), ("no gate: nothing to pass or fail",))


def test_what_else_the_manifests_gate_asks_holds_for_fp32_too(tmp_path, files):
    strict = write_bundle(tmp_path / "strict", files, n=60, gate=Gate(fail_under=0.99, max_drop=0.01))
    assert edgeproof("verify", strict, "--attacks", "fgsm", "--out", "run").exit_code == 1
    assert load_report(Path("run")).gate == Gate(fail_under=0.99)


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


def test_a_bundle_whose_gate_forbids_no_drop_is_refused(files, tmp_path):
    """A drop of 100 % is always allowed, so that any model would pass."""
    bundle = write_bundle(tmp_path / "bundle", files, n=60, gate=Gate(max_drop=0.01))
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"max_drop": 0.01', '"max_drop": 1.0'))
    result = edgeproof("verify", bundle, "--attacks", "fgsm", "--out", tmp_path / "report")
    assert (result.exit_code, "gate.max_drop" in result.stderr) == (3, True)

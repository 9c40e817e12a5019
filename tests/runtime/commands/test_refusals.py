"""What `verify` refuses, with which exit code, before it has written anything."""

from pathlib import Path

import numpy as np
import pytest

from runtime.bundle.manifest import EVALUATION, Graph
from tests.command_line import edgeproof
from tests.paths import TINY
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, graph, npz

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


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
    stored = TINY
    assert edgeproof("verify", stored, "--attacks", "fgsm", "--no-gate", "--out", "run").exit_code == 0


def test_a_bundle_without_a_gradient_graph_is_refused_before_any_pass_unless_none_is_asked_for(tmp_path, files):
    graphs = {"fp32": Graph(forward="model.fp32.onnx", gradient=None, opset=18)}
    del files["model.fp32.grad.onnx"]
    bundle = write_bundle(tmp_path / "bundle", files, n=60, graphs=graphs)
    result = edgeproof("verify", bundle, "--attacks", "square,pgd", "--out", "run")
    assert result.exit_code == 3, result.stderr
    assert "pgd needs a gradient" in result.stderr
    assert "--gradient none" in result.stderr
    assert "clean:" not in result.stderr
    assert not Path("run").exists()
    assert edgeproof("verify", bundle, "--attacks", "clean", "--out", "run").exit_code == 0


def test_a_missing_provider_is_the_environments_fault(bundle, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert edgeproof("verify", bundle, "--provider", "cuda").exit_code == 4

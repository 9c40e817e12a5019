import json
import shutil

import pytest

from pipeline.runs.distill import distill
from runtime.bundle.opening import open_bundle
from runtime.files import sha256
from tests.command_line import edgeproof
from tests.pipeline.runs.small_runs import small


def test_the_bundle_says_where_it_comes_from_and_what_was_measured(bundle, trained_run):
    manifest = open_bundle(bundle).manifest
    summary = json.loads((trained_run / "summary.json").read_text())
    assert manifest.provenance is not None
    assert manifest.provenance.recipe_sha256 == sha256((trained_run / "recipe.toml").read_bytes())
    assert manifest.provenance.checkpoint_sha256 == sha256((trained_run / "student.best.safetensors").read_bytes())
    assert manifest.reference is not None
    assert (manifest.reference.clean, manifest.reference.pgd) == (summary["best"]["clean"], summary["best"]["pgd"])
    parity = manifest.graphs["fp32"].parity
    assert parity is not None
    assert parity.max_logit_error <= parity.max_logit_error_limit
    assert manifest.evaluation.n == 2000


def test_no_file_of_the_bundle_names_a_path_of_this_machine(bundle, trained_run):
    for path in bundle.iterdir():
        content = path.read_bytes()
        for trace in (str(trained_run).encode(), b"site-packages", b"stack_trace", b".py"):
            assert trace not in content, f"{path.name} holds {trace!r}"


def test_a_bundle_is_never_overwritten(bundle, trained_run):
    result = edgeproof("export", trained_run, "--out", bundle)
    assert result.exit_code == 2
    assert "not empty" in result.stderr


def test_the_manifest_keeps_no_path_of_the_training_machine(trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    elsewhere = (
        (run / "recipe.toml")
        .read_text()
        .replace('[teacher]\nname = "fashion-mini"', '[teacher]\npath = "/home/someone/teacher.safetensors"')
    )
    (run / "recipe.toml").write_text(elsewhere)
    result = edgeproof("export", run, "--out", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.provenance is not None
    assert manifest.provenance.recipe["teacher"] == {"path": "teacher.safetensors"}


def test_a_bundle_says_which_extra_images_its_student_saw_and_no_path_of_theirs(tmp_path):
    recipe = small(tmp_path, f"data.extra.path={tmp_path}/extra.npz", "data.extra.share=0.3", "train.epochs=1")
    summary = distill(recipe, tmp_path / "run")
    result = edgeproof("export", tmp_path / "run", "--out", tmp_path / "bundle", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    origin = open_bundle(tmp_path / "bundle").manifest.provenance
    assert origin is not None
    assert origin.extra_data == summary.extra_data
    assert origin.recipe["data"]["extra"] == {"path": "extra.npz", "share": 0.3}
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert f"- extra training data: extra, 50 images, sha256 `{summary.extra_data.sha256}`" in card
    assert "and on 50 of extra" in edgeproof("inspect", tmp_path / "bundle").stdout


def test_an_export_with_a_key_is_trusted_by_its_public_half_alone(bundle, keys):
    result = edgeproof("inspect", bundle, "--trust", keys / "public.pem")
    assert result.exit_code == 0, result.output
    assert "fashion-mini version 7" in result.stdout
    assert "authenticated: signed with key" in result.stdout


def test_a_key_that_cannot_sign_is_refused_before_any_work(tmp_path, trained_run):
    (tmp_path / "key.pem").write_text("?")
    result = edgeproof("export", trained_run, "--out", tmp_path / "b", "--key", tmp_path / "key.pem")
    assert result.exit_code == 3
    assert "holds no private key" in result.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.check
def test_every_precision_of_a_bundle_is_attacked_with_its_own_gradient(trained_run, tmp_path):
    out = tmp_path / "bundle"
    asked = ("--precision", "fp32,fp16,int8", "--ships", "int8", "--calibration-images", 64)
    result = edgeproof("export", trained_run, *asked, "--out", out)
    assert result.exit_code == 0, result.output
    assert "ships: int8" in result.stdout
    manifest = open_bundle(out).manifest
    assert manifest.graphs["int8"].calibration.data.name == "fashion-mini/train"
    assert manifest.graphs["int8"].calibration.data.n == 64
    standing = {}
    for precision in ("fp32", "fp16", "int8"):
        options = ("--precision", precision, "--n", 50, "--attacks", "pgd", "--json", "--out", tmp_path / precision)
        verified = edgeproof("verify", out, *options)
        assert verified.exit_code in (0, 5), verified.output
        report = json.loads(verified.stdout)
        assert report["artifact"]["precision"] == precision
        standing[precision] = report["robust_accuracy"]["value"]
    assert max(standing.values()) - min(standing.values()) <= 0.1


@pytest.mark.parametrize("asked", [("--precision", "fp8"), ("--precision", "fp32", "--ships", "int8")])
def test_a_precision_that_there_is_not_is_a_usage_error(trained_run, tmp_path, asked):
    result = edgeproof("export", trained_run, *asked, "--out", tmp_path / "bundle")
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_summary_that_is_none_is_refused(trained_run, tmp_path, content):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    (run / "summary.json").write_text(content)
    assert edgeproof("export", run, "--out", tmp_path / "bundle").exit_code == 3


@pytest.mark.parametrize("damage", ["student.best.safetensors", "recipe.toml", "summary.json"])
def test_a_damaged_run_is_refused_and_leaves_no_bundle(trained_run, tmp_path, damage):
    run = tmp_path / "run"
    run.mkdir()
    for path in trained_run.iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes()[: 20 if path.name == damage else None])
    result = edgeproof("export", run, "--out", tmp_path / "bundle")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_run_that_never_finished_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    result = edgeproof("evaluate", tmp_path / "run")
    assert result.exit_code == 3
    assert "not a finished run" in result.stderr

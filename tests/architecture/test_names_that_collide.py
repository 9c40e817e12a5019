"""A working directory that holds modules of the user's own by our names, and by the standard library's."""

import json

import pytest

from tests.architecture.environments import BUNDLE, beside, run, wheel
from tests.pipeline.runs.small_runs import write_small
from tests.pipeline.study.conftest import write_data, write_study

STRANGERS = ("runtime.py", "export/__init__.py", "pipeline/__init__.py")
SHADOWS = ("queue.py", "socket.py", "click.py", "numpy.py")
"""What shadows a library where the working directory is on Python's path; with PYTHONPATH=. that is the user's wish."""
PROGRAM, MODULE, PATH = ["edgeproof"], ["python", "-m", "edgeproof"], {"PYTHONPATH": "."}
WAYS = {
    "program": (PROGRAM, {}, (*SHADOWS, "edgeproof.py")),
    "module": (MODULE, {}, SHADOWS),
    "program, PYTHONPATH": (PROGRAM, PATH, ()),
    "module, PYTHONPATH": (MODULE, PATH, ()),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    home = tmp_path_factory.mktemp("environment")
    return beside(wheel(home), home)


@pytest.fixture(params=WAYS)
def edgeproof(request, environment, tmp_path):
    """Return a function that runs a command where strangers lie, started in one way; and the place."""
    (program, *words), path, shadows = WAYS[request.param]
    for name in (*STRANGERS, *shadows):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('a stranger was imported: ' + __file__)\n")

    def call(*arguments, expect=0):
        result = run([environment / program, *words, *arguments], tmp_path, OMP_NUM_THREADS="1", **path)
        assert "a stranger was imported" not in result.stdout + result.stderr
        assert result.returncode == expect, result.stdout + result.stderr
        return result

    return call, tmp_path


@pytest.mark.check
def test_every_command_of_the_device_works(edgeproof):
    call, place = edgeproof
    call("--help")
    call("inspect", BUNDLE)
    for name in ("one", "two"):
        call("verify", BUNDLE, "--n", "8", "--attacks", "fgsm", "--no-gate", "--out", name)
    call("compare", "one", "two")
    call("report", "one")
    for k in (1, 2):
        call("verify", BUNDLE, "--n", "8", "--attacks", "fgsm", "--no-gate", "--shard", f"{k}/2", "--out", f"shard-{k}")
    call("merge", "shard-1", "shard-2", "--out", "merged")
    assert (place / "merged/evidence.npz").read_bytes() == (place / "one/evidence.npz").read_bytes()
    call("bench", BUNDLE, "--seconds", "0.01", "--idle", "0")
    call("key", "new", "--out", "keys")
    call("install", BUNDLE, "--to", "device")
    call("pack", BUNDLE / "model.fp32.onnx", "--data", BUNDLE / "evaluation.npz", "--out", "packed")


@pytest.mark.check
def test_the_checks_of_the_gpu_are_ours(edgeproof):
    call, place = edgeproof
    call("gpu-check", BUNDLE, "--n", "4", "--only", "ort-cuda", "--out", "gpu", expect=4)
    (result,) = json.loads((place / "gpu/gpu-check.json").read_bytes())["results"]
    assert result["state"] == "not there"
    assert "process" not in result["message"]


@pytest.mark.parametrize("edgeproof", ["program", "module, PYTHONPATH"], indirect=True)
def test_the_processes_of_a_training_run_find_ours(edgeproof, tmp_path_factory):
    call, place = edgeproof
    recipe = write_small(tmp_path_factory.mktemp("images"))
    call("distill", recipe, "--devices", "2", "--set", "train.max_steps=2", "--out", "run")
    assert json.loads((place / "run/summary.json").read_bytes())["devices"] == 2


@pytest.mark.parametrize(
    "edgeproof", ["program, PYTHONPATH"], indirect=True
)  # Ray puts it there itself, and imports from it
def test_the_workers_of_a_cluster_find_ours(edgeproof, tmp_path_factory):
    call, place = edgeproof
    study = write_study(tmp_path_factory.mktemp("study"), write_data(tmp_path_factory.mktemp("images")))
    call("study", study, "--ray", "local", "--out", "out")
    assert (place / "out/table/table.md").is_file()


@pytest.mark.check
def test_a_stranger_that_was_imported_before_us_is_told(environment, tmp_path):
    (tmp_path / "runtime.py").touch()
    (tmp_path / "sitecustomize.py").write_text("import runtime\n")
    result = run([environment / "edgeproof", "--help"], tmp_path, PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stdout) == (4, "")
    assert str(tmp_path / "runtime.py") in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr

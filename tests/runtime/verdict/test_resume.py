"""Runs that are killed or interrupted in a real process, and go on."""

import json
import random
import shlex
import signal
import time

import numpy as np
import pytest

from runtime.bundle.manifest import EVALUATION, Graph
from runtime.errors import BadData, BadRun
from runtime.machine import card
from runtime.records.report import load_report
from runtime.verdict.run_directory import check_same, open_run, read_request
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.verdict.long_run import (
    OPTIONS,
    N,
    assert_same,
    lines,
    move_here,
    start,
    stop,
    wait_for_line,
    whole_run,
)
from tests.tiny import FORWARD, HALVED, bundle_files, graph, linear_task, npz


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("resume"))


@pytest.mark.parametrize("killed_after", [1, 6])
def test_a_killed_run_loses_at_most_the_unit_in_flight(place, tmp_path, killed_after):
    out = tmp_path / "run"
    with start(place, out) as process:
        stop(process, signal.SIGKILL, out, killed_after)
    assert process.returncode == -signal.SIGKILL
    done = lines(out) - 1
    assert done >= killed_after - 1
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--batch", 7, "--out", out, "--resume")
    assert result.exit_code == 0, result.stderr
    assert done == 0 or f"resuming: {done} units of work are done" in result.stderr
    assert_same(out, place / "whole")
    assert not (out / "units").exists()


def test_a_run_that_is_asked_to_end_says_how_to_go_on(place, tmp_path):
    out = tmp_path / "run"
    with start(place, out) as process:
        said = stop(process, signal.SIGTERM, out, 2)
    assert process.returncode == 130
    assert f" --out {out} --resume\n" in said.partition("finished work is saved; to resume: edgeproof verify ")[2]
    assert said.splitlines()[-1] == "interrupted"
    assert edgeproof("verify", place / "bundle", *OPTIONS, "--out", out, "--resume").exit_code == 0
    assert_same(out, place / "whole")


@pytest.mark.parametrize("stopped_in", ["run-fp32", "run"])
def test_a_drop_that_is_interrupted_in_either_of_its_runs_goes_on_to_the_run_that_was_asked(
    place, tmp_path, stopped_in
):
    task = linear_task(n=N)
    with np.load(place / "bundle" / EVALUATION) as stored:
        files = {**bundle_files(task), EVALUATION: npz(**stored), "model.fp16.onnx": graph(HALVED, *task[:2])}
    graphs = {
        "fp32": Graph(forward="model.fp32.onnx", gradient="model.fp32.grad.onnx", opset=18),
        "fp16": Graph(forward="model.fp16.onnx", gradient=None, opset=18),
    }
    write_bundle(tmp_path / "bundle", files, n=N, graphs=graphs, ships="fp16")
    out, drop = tmp_path / "run", ("--max-drop", "90%")
    with start(tmp_path, out, *drop) as process:
        said = stop(process, signal.SIGINT, tmp_path / stopped_in, 2)
    assert process.returncode == 130
    (told,) = (line for line in said.splitlines() if "to resume" in line)
    program, *words = shlex.split(told.partition("finished work is saved; to resume: ")[2])
    assert (program, words[:2], words[-3:]) == (
        "edgeproof", ["verify", str(tmp_path / "bundle")], ["--out", str(out), "--resume"],
    )  # fmt: skip
    result = edgeproof(*words)
    assert result.exit_code in (0, 5), result.stderr  # 5: how many images suffice for a gate is not this test's matter
    assert "resuming: " in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "run", "run-fp32"}
    assert load_report(out).paired.difference == 0
    assert load_report(out).request.against == read_request(tmp_path / "run-fp32").digest()


def test_a_finished_run_is_not_done_again(place):
    before = (place / "whole" / "report.json").read_bytes()
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", place / "whole", "--resume", "--json")
    assert result.exit_code == 0
    assert "is already finished" in result.stderr
    assert result.stdout.encode() == before


def test_resume_begins_where_nothing_is_and_needs_a_place(place, tmp_path):
    result = edgeproof("verify", place / "bundle", "--attacks", "fgsm", "--out", tmp_path / "new", "--resume")
    assert result.exit_code == 0
    result = edgeproof("verify", place / "bundle", "--resume")
    assert (result.exit_code, "--out DIR" in result.stderr) == (2, True)


@pytest.fixture
def half(place, tmp_path):
    """A run that was killed half way."""
    out = tmp_path / "half"
    with start(place, out) as process:
        stop(process, signal.SIGKILL, out, 3)
    return out


CHANGED = {
    "other seed": (["--seed", "1"], "began with seed 0, but this command has 1\n"),
    "other eps": (["--eps", "0.02"], "began with threat_model linf, eps 0.01, but this command has linf, eps 0.02"),
    "other attacks": (["--attacks", "fgsm"], "began with attacks fgsm, pgd, apgd-ce, but this command has fgsm\n"),
    "fewer images": (["--n", "300"], "began with n "),
    "a gate": (["--fail-under", "1%"], "began with gate none, but this command has fail_under=0.01\n"),
    "a shard": (["--shard", "1/2"], "began with shard none, but this command has 1/2\n"),
}


def test_what_is_not_the_same_run_is_refused_with_its_reason(place, half, tmp_path):
    kept = (half / "journal.jsonl").read_bytes()
    for options, reason in CHANGED.values():
        result = edgeproof("verify", place / "bundle", *OPTIONS, *options, "--out", half, "--resume")
        assert result.exit_code == 3, result.stderr
        assert reason in result.stderr
    weight, bias, images, labels = linear_task(n=N)
    with np.load(place / "bundle" / EVALUATION) as stored:
        same_images = npz(**stored)
    other = {
        **bundle_files((weight, bias, images, labels)),
        "model.fp32.onnx": graph(FORWARD, weight * 2, bias),
        EVALUATION: same_images,
    }
    write_bundle(tmp_path / "other", other, n=N)
    result = edgeproof("verify", tmp_path / "other", *OPTIONS, "--out", half, "--resume")
    assert result.exit_code == 3
    assert "began with artifact_sha256 " in result.stderr
    assert (half / "journal.jsonl").read_bytes() == kept


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime-gpu"])
def test_another_version_of_the_engine_does_not_go_on_with_a_run(place, half, package, monkeypatch):
    real = card.version
    monkeypatch.setattr(card, "version", lambda name: "0.0" if name == package else real(name))
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", half, "--resume")
    assert result.exit_code == 3, result.stderr
    assert f"began with {package} " in result.stderr


GPU = {"accelerator": "H200", "driver": "580.159", "cuda_runtime": "13.0", "cudnn": "9.10.2"}


@pytest.fixture
def begun_on_a_gpu(half, monkeypatch):
    """Return a function that makes the half run one of a GPU, as its journal says, and this machine another."""
    made_by = json.loads((half / "journal.jsonl").read_text().partition("\n")[0])["made_by"]

    def put(was, now):
        move_here(half, made_by | was)
        monkeypatch.setattr("runtime.verdict.subject.accelerator", lambda device: now)

    return put


@pytest.mark.parametrize("name", GPU)
@pytest.mark.parametrize("now", ["another", None])
def test_another_card_driver_cuda_or_cudnn_does_not_go_on_with_a_run(place, half, begun_on_a_gpu, name, now):
    begun_on_a_gpu(GPU, {key: value for key, value in (GPU | {name: now}).items() if value})
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", half, "--resume")
    assert result.exit_code == 3, result.stderr
    assert f"began with {name} {GPU[name]}, and this is {now or 'unknown'}" in result.stderr


def test_a_run_of_before_drivers_were_said_goes_on(place, half, begun_on_a_gpu):
    begun_on_a_gpu({"accelerator": "H200"}, GPU)
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", half, "--resume")
    assert result.exit_code in (0, 5), result.stderr


def test_a_run_that_looked_at_the_first_images_does_not_go_on_with_others(place, half):
    """Earlier versions sampled the first 256, which in a set sorted by class show few classes."""
    made_by = json.loads((half / "journal.jsonl").read_text().partition("\n")[0])["made_by"]
    move_here(half, {name: value for name, value in made_by.items() if name != "sample"})
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", half, "--resume")
    assert result.exit_code == 3, result.stderr
    assert "began with sample unknown, and this is random" in result.stderr
    assert "start again with another --out" in result.stderr


DAMAGE = {
    "journal.jsonl": (lambda data: data.replace(b"clean", b"clear"), "line 2 is damaged"),
    "run.json": (lambda data: data.replace(b'"seed": 0', b'"seed": 1'), "its digest is not that of its request"),
    "units/clean-0.npz": (lambda data: data[:-1], "clean-0.npz is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_refused_with_its_reason(place, half, name):
    change, reason = DAMAGE[name]
    (half / name).write_bytes(change((half / name).read_bytes()))
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", half, "--resume")
    assert result.exit_code == 3, result.stderr
    assert reason in result.stderr


def test_a_last_line_that_a_power_cut_tore_is_done_again(place, half):
    path = half / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert edgeproof("verify", place / "bundle", *OPTIONS, "--out", half, "--resume").exit_code == 0
    assert_same(half, place / "whole")


def test_without_resume_a_run_that_is_there_is_left_alone(place, half):
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", half)
    assert result.exit_code == 2
    assert "--resume" in result.stderr


def test_a_directory_that_is_no_run_is_not_gone_on_with(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    result = edgeproof("verify", place / "bundle", "--out", tmp_path / "mine", "--resume")
    assert result.exit_code == 3
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_directory_of_hidden_files_is_no_run_and_keeps_them(place, tmp_path):
    (tmp_path / "mine" / ".git").mkdir(parents=True)
    (tmp_path / "mine" / ".git" / "config").write_text("keep")
    result = edgeproof("verify", place / "bundle", "--out", tmp_path / "mine", "--resume")
    assert result.exit_code == 3, result.stderr
    assert (tmp_path / "mine" / ".git" / "config").read_text() == "keep"


def test_a_run_goes_on_beside_what_a_power_cut_left_of_its_first_file(place, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.x1y2").write_text("{")
    options = ["--attacks", "clean", "--out", tmp_path / "run", "--resume"]
    assert edgeproof("verify", place / "bundle", *options).exit_code == 0


def test_a_run_that_ends_before_its_first_unit_removes_no_file_but_its_own(place, tmp_path):
    def fail_in(out, *names):
        with open_run(out, read_request(place / "whole"), resume=False):
            for name in names:
                (out / name).write_text("keep")
            raise BadData("before the first unit")

    with pytest.raises(BadData, match="before"):
        fail_in(tmp_path / "run", "notes.txt")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    with pytest.raises(BadData, match="before"):
        fail_in(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_runs_killed_at_fifty_random_moments_end_as_if_nothing_had_been(place, tmp_path):
    """A fifth of the kills at any time from the start, the others soon after a new line of the journal."""
    chance, kills, runs, lost, working = random.Random(0), 0, 0, [], 0
    while kills < 50:
        out, ended = tmp_path / f"run{runs}", False
        runs += 1
        while not ended:
            before, early = lines(out), chance.random() < 0.2
            with start(place, out, "--resume") as process:
                wait_for_line(process, out, 0 if early else before)
                time.sleep(chance.uniform(0, 2 if early else 0.15))
                process.kill()
                process.communicate(timeout=120)
            ended = process.returncode == 0
            assert lines(out) >= before
            if not ended:
                kills, working = kills + 1, working + (lines(out) > before)
                units = {path.stem for path in (out / "units").glob("[!.]*.npz")}
                lost.append(len(units) - max(lines(out) - 1, 0))
        assert_same(out, place / "whole")
    print(
        f"{kills} kills in {runs} runs, {working} of them after new work; at most {max(lost)} unit beyond the journal"
    )
    assert max(lost) <= 1
    assert working > 20
    assert load_report(place / "whole").verdict == "measured"


def test_a_run_of_another_model_says_what_two_digests_mean(finished):
    asked = read_request(finished[0])
    check_same(finished[0], asked)
    with pytest.raises(BadRun) as caught:
        check_same(finished[0], asked.model_copy(update={"artifact_sha256": "1" * 64}))
    assert caught.value.hint.startswith(
        "the model, or how it is packed (--mean, --std, --bgr, --output), has changed; "
    )
    with pytest.raises(BadRun) as caught:
        check_same(finished[0], asked.model_copy(update={"seed": asked.seed + 1}))
    assert caught.value.hint == "give the same, or begin in another --out"


def test_what_a_run_leaves_that_is_killed_after_its_end_is_removed_by_resuming(bundle, tmp_path):
    command = ("verify", bundle, "--attacks", "fgsm", "--n", "8", "--out", tmp_path / "run", "--resume")
    assert edgeproof(*command).exit_code == 0
    before = {path.name for path in (tmp_path / "run").iterdir()}
    (tmp_path / "run" / "units").mkdir()
    for name in ("units/clean-0.npz", ".report.json.01234567"):
        (tmp_path / "run" / name).write_bytes(b"")
    assert edgeproof(*command).exit_code == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == before

"""`make cifar10`: what it says first, what it refuses, and the small way whole on images made up here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.recipe.schema import load_recipe
from pipeline.runs.directory import CHECKPOINTS, SUMMARY
from runtime.bundle.manifest import MANIFEST
from runtime.commands.judging import EXIT_CODES
from runtime.records.report import REPORT
from tests.paths import ROOT
from tools.cifar10 import __main__ as way
from tools.cifar10 import cost
from tools.cifar10.__main__ import follow
from tools.cifar10.steps import FULL, SMALL, Step, source_of, steps

COLOURS = np.array(
    [[r, g, b] for r in (40, 215) for g in (40, 215) for b in (40, 215)] + [[128, 128, 20], [20, 128, 128]]
)
"""One a class, further apart than any attack within 8/255 can bring them."""
LONG_AGO = 1_000_000_000
BEST, CPU = CHECKPOINTS["best"], torch.device("cpu")


def make_up(place, *, train, test=40):
    """Write coloured noise in ten classes, as train.npz and test.npz."""
    random = np.random.default_rng(0)
    place.mkdir(exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % len(COLOURS)
        noise = random.integers(-20, 21, (count, 3, 32, 32), dtype=np.int16)
        images = np.clip(COLOURS[labels][:, :, None, None] + noise, 0, 255).astype(np.uint8)
        np.savez(place / f"{split}.npz", x=images, y=labels)
    return place


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Ask for the way in an empty directory; a step on two images is timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(cost.BATCH, "cpu", 2)
    return lambda *words: CliRunner().invoke(way.main, [str(word) for word in words])


def test_a_cpu_is_told_how_long_the_full_size_would_take_and_asked_for_the_small_one(asked, tmp_path):
    result = asked("--data", make_up(tmp_path / "images", train=1300))
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1] == "hint: make cifar10 SMALL=1"
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "adaad, resnet18 of width 1, 16 steps of 128 images: about" in lines["distill"]
    assert "26 steps of 256 images" in lines["teach"]
    assert "AutoAttack on 500 test images, by ONNX Runtime on cpu: about" in lines["verify"]
    assert "steps that were timed just now" in lines["time"]
    assert "536.4 MB" in lines["disk"]
    assert "No run of this way is known yet" in lines["accuracy"]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_time_grows_with_the_steps(monkeypatch):
    monkeypatch.setattr(cost, "seconds_an_image", lambda *_: 0.5)
    monkeypatch.setattr(cost, "attack_seconds", lambda *_: 2.0)
    teacher, student = load_recipe(SMALL.teacher), load_recipe(SMALL.student)
    seconds = cost.seconds_of(SMALL, teacher, student, 1300, device=CPU, attacks_on=CPU)
    assert seconds == {"teach": 2 * 128 * 0.5, "distill": 2 * 128 * 0.5, "verify": 2.0 * SMALL.images}
    assert cost.steps_of(student, 50_000) == student.train.max_steps


def test_the_attack_is_timed_where_it_runs_and_training_where_it_trains(monkeypatch):
    timed = {}
    monkeypatch.setattr(
        cost, "seconds_an_image", lambda recipe, teacher, device: timed.setdefault("step", device) and 1
    )
    monkeypatch.setattr(cost, "attack_seconds", lambda student, device: timed.setdefault("pass", device) and 1)
    teacher, student = load_recipe(SMALL.teacher), load_recipe(SMALL.student)
    cost.seconds_of(SMALL, teacher, student, 1300, device=torch.device("cuda"), attacks_on=CPU)
    assert timed == {"step": torch.device("cuda"), "pass": CPU}


def test_where_there_are_no_images_nothing_begins(asked, tmp_path):
    result = asked("--small", "--data", tmp_path / "nowhere")
    assert (result.exit_code, "is no directory" in result.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    result = asked("--small", "--data", tmp_path / "empty")
    assert (result.exit_code, "holds no data set" in result.stderr) == (3, True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_archive_is_to_be_unpacked_first(asked, tmp_path):
    (tmp_path / "cifar10.zip").write_bytes(b"PK")
    result = asked("--small", "--data", tmp_path / "cifar10.zip")
    assert (result.exit_code, "unpack an archive first" in result.stderr) == (2, True)


def test_images_of_another_kind_are_refused(asked, tmp_path):
    place = tmp_path / "grey"
    place.mkdir()
    for split in ("train", "test"):
        np.savez(place / f"{split}.npz", x=np.zeros((8, 8, 8), np.uint8), y=np.arange(8) % 4)
    result = asked("--small", "--data", place)
    assert (result.exit_code, "1 x 8 x 8, of 4 classes" in result.stderr) == (3, True)


def test_without_a_network_it_says_where_the_images_belong(asked, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the port discard, where nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    result = asked("--small")
    assert result.exit_code == 3
    assert "and the download failed" in result.stderr
    assert "hint: make cifar10 DATA=DIR" in result.stderr


def test_the_published_files_are_known_by_their_folder(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    published = source_of(tmp_path)
    assert (published.root, published.words) == (tmp_path, ())
    assert all(str(tmp_path) in step.words for step in steps(FULL, published, "cpu")[:3])


def test_a_finished_verify_is_asked_again_and_its_code_is_still_that_of_its_verdict(bundle, tmp_path):
    report = tmp_path / "report"
    options = ("--attacks", "pgd", "--n", "8", "--fail-under", "40%", "--accept-blind-evidence")
    step = Step(("verify", str(bundle), *options, "--out", str(report), "--resume"), report / REPORT)
    assert follow([step]) == EXIT_CODES["inconclusive"]
    before = step.done.stat().st_mtime_ns
    assert follow([step]) == EXIT_CODES["inconclusive"]
    assert step.done.stat().st_mtime_ns == before


def test_a_step_that_fails_ends_the_way(tmp_path, capfd):
    failing = Step(("distill", "no-such-recipe"), tmp_path / "never")
    assert follow([failing, Step(("recipes",), tmp_path / "never")]) == 2
    assert "$ edgeproof recipes" not in capfd.readouterr().out


def test_only_a_bundle_of_this_checkpoint_is_not_exported_again(trained_run, bundle, tmp_path, capfd):
    export = Step(("export", str(trained_run), "--out", str(bundle)), bundle / MANIFEST, trained_run / BEST)
    assert (export.left, follow([export])) == (False, 0)
    assert "$ edgeproof" not in capfd.readouterr().out
    retrained = tmp_path / "run"
    shutil.copytree(trained_run, retrained)
    network, card = load_checkpoint(retrained / BEST)
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    save_checkpoint(retrained / BEST, network, card)
    stale = Step(("export", str(retrained), "--out", str(bundle)), bundle / MANIFEST, retrained / BEST)
    assert stale.left
    assert follow([stale]) == 2
    assert f"{bundle} exists" in capfd.readouterr().err


def test_images_of_another_folder_are_refused_once_training_has_begun(trained_run, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    recipe = ("--out", str(run), "--set", f"data.path={tmp_path}", "--resume")
    assert follow([Step(("distill", str(run / "recipe.toml"), *recipe), run / SUMMARY)]) == 3
    assert "the run began with another recipe" in capfd.readouterr().err


@pytest.mark.parametrize("size", [FULL, SMALL])
def test_the_student_is_taught_by_the_teacher_of_the_step_before(size):
    teacher, student = load_recipe(size.teacher), load_recipe(size.student)
    assert student.teacher.path == Path(steps(size, source_of(None), "cpu")[0].words[3])
    assert (teacher.name, student.name) == (size.teacher, size.student)
    assert teacher.method.name == "pgd-at"
    assert student.method.name == "adaad"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_small_way_goes_from_images_to_a_report_and_is_not_gone_twice(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    os.utime(tmp_path / "pyproject.toml", (LONG_AGO, LONG_AGO))
    (tmp_path / "venv").mkdir()
    for stamp in ("python", "main-job"):
        (tmp_path / "venv" / stamp).touch()
    data = make_up(tmp_path / "images", train=9000)
    command = ["make", "cifar10", "SMALL=1", f"DATA={data}", "VENV=venv", f"BIN={Path(sys.executable).parent}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}

    def made():
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    first = made()
    report = tmp_path / "reports" / SMALL.student / "report.json"
    assert report.is_file(), first.stdout + first.stderr
    told = json.loads(report.read_text())
    assert (told["artifact"]["precision"], told["clean"]["n"]) == ("fp32", SMALL.images)
    assert {"pgd", "aa"} <= {attack["name"] for attack in told["attacks"]}
    assert sorted(json.loads((tmp_path / "bundles" / SMALL.student / "manifest.json").read_text())["graphs"]) == [
        "fp16", "fp32", "int8",
    ]  # fmt: skip
    assert first.stdout.index("accuracy ") < first.stdout.index("$ edgeproof teach")
    before = report.stat().st_mtime_ns
    second = made()
    assert second.returncode == first.returncode
    assert "$ edgeproof export" not in second.stdout
    assert "steps are left" not in second.stdout
    assert report.stat().st_mtime_ns == before
    (tmp_path / "others").mkdir()
    command[3] = f"DATA={tmp_path / 'others'}"
    other = made()
    assert other.returncode != 0
    assert "the run began with another recipe" in other.stderr
    assert "$ edgeproof distill" not in other.stdout

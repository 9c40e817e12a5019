"""A run that was stopped goes on to the very weights that it would have reached; what does not fit is refused."""

import errno
import json
import signal
import subprocess
import time
from itertools import count
from pkgutil import resolve_name

import numpy as np
import pytest
from safetensors import safe_open

from pipeline.runs.directory import STATE, read_summary, sole_writer
from pipeline.runs.distill import distill
from pipeline.runs.loop import READ_EVERY
from pipeline.study.cell import claimed
from runtime.errors import BadInput, BadRecipe, MissingEnvironment, UsageFault
from runtime.images.npz import read_npz
from tests.command_line import edgeproof
from tests.modes import UMASKS, left, under
from tests.paths import PROGRAM
from tests.pipeline.runs import small_runs
from tests.pipeline.runs.small_runs import STEPS_PER_EPOCH, assert_equal_bits, metrics, small, weights, write_small
from tests.pipeline.training.recorded import Recorded

STEP = "pipeline.training.trainer.Trainer.step"
VARIANTS = {
    "plain": (),
    "averaged, in parts, searched in train mode": ("train.ema=0.9", "train.micro_batches=2", "method.name=iad"),
    "augmented, with extra images": (
        "data.augment=cropshift",
        'data.augment_switch=[1, "idbh-weak"]',
        "data.extra.path={data}/extra.npz",
        "data.extra.share=0.3",
    ),
    "labels from its own average, in parts": ("method.name=adr", "method.adr.decay=0.9", "train.micro_batches=2"),
    "a frozen stem, averaged, with perturbed weights": (
        f"student.factory={small_runs.__name__}:with_a_frozen_stem",
        "train.ema=0.9",
        "train.awp=0.01",
    ),
    "layers at random, averaged": (
        f"student.factory={small_runs.__name__}:with_layers_at_random",
        "train.ema=0.9",
    ),
    "one cycle": ("train.schedule=one-cycle", "train.nesterov=true", "train.warmup=0.5", "train.label_smoothing=0.1"),
}
LAST = 2 * STEPS_PER_EPOCH


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda name: name.partition(",")[0])
def whole(request, tmp_path_factory):
    """A recipe, and the directory of a run of it that nothing stopped."""
    directory = tmp_path_factory.mktemp("whole")
    recipe = small(directory, *(override.format(data=directory) for override in VARIANTS[request.param]))
    distill(recipe, directory / "run")
    return recipe, directory / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    recipe = small(directory, "train.max_steps=2")
    return recipe, directory / "run", distill(recipe, directory / "run")


def stop(monkeypatch, where, at):
    """Let a call of a function end in an interrupt, the one with number `at` (from 0)."""
    calls, original = count(), resolve_name(where)

    def stopping(*arguments, **options):
        if next(calls) == at:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(where, stopping)


def stopped(recipe, out, monkeypatch, where, at, save_seconds=0.0):
    with monkeypatch.context() as patch:
        stop(patch, where, at)
        with pytest.raises(KeyboardInterrupt):
            distill(recipe, out, resume=True, save_seconds=save_seconds)
    assert not (out / "summary.json").exists()


@pytest.mark.parametrize(
    ("where", "at"),
    [
        (STEP, 0),
        (STEP, 3),
        (STEP, STEPS_PER_EPOCH + 2),
        ("pipeline.runs.loop.attacked", 0),
        ("pipeline.runs.loop.save_checkpoint", 1),
        ("pipeline.runs.loop.save_state", STEPS_PER_EPOCH),
    ],
)
def test_a_stopped_run_goes_on_to_equal_bits_and_an_equal_log(whole, where, at, tmp_path, monkeypatch):
    recipe, run = whole
    stopped(recipe, tmp_path / "run", monkeypatch, where, at)
    summary = distill(recipe, tmp_path / "run", resume=True)
    for which in ("last", "best"):
        assert_equal_bits(weights(tmp_path / "run", which), weights(run, which))
    assert metrics(tmp_path / "run") == metrics(run)
    assert summary.steps == LAST


def test_a_run_that_began_before_there_were_schedules_goes_on_to_equal_bits(tmp_path, monkeypatch):
    recipe = small(tmp_path)
    distill(recipe, tmp_path / "whole")
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, STEPS_PER_EPOCH + 2)
    begun = tmp_path / "run" / "recipe.toml"
    new = ("nesterov", "schedule", "warmup", "label_smoothing")
    old = [line for line in begun.read_text().splitlines() if not line.startswith(new)]
    assert len(old) == len(begun.read_text().splitlines()) - len(new)
    begun.write_text("\n".join(old))
    distill(recipe, tmp_path / "run", resume=True)
    assert_equal_bits(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_what_was_done_after_the_last_saved_state_is_done_again_and_logged_once(whole, tmp_path, monkeypatch):
    recipe, run = whole
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, STEPS_PER_EPOCH + 3, save_seconds=1e9)
    assert len(metrics(tmp_path / "run")) == STEPS_PER_EPOCH + 1 + 3
    with safe_open(tmp_path / "run" / STATE, framework="pt") as file:
        assert json.loads(file.metadata()["edgeproof"])["steps"] == STEPS_PER_EPOCH
    distill(recipe, tmp_path / "run", resume=True)
    assert_equal_bits(weights(tmp_path / "run"), weights(run))
    assert metrics(tmp_path / "run") == metrics(run)


@pytest.mark.parametrize("at", [3, STEPS_PER_EPOCH + 3])
def test_losses_that_are_read_every_few_steps_are_logged_alike_and_a_stopped_run_goes_on(
    whole, at, tmp_path, monkeypatch
):
    recipe, run = whole
    monkeypatch.setitem(READ_EVERY, "cpu", 3)
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, at, save_seconds=1e9)
    logged = len(metrics(tmp_path / "run"))
    assert logged == at + at // STEPS_PER_EPOCH if at % STEPS_PER_EPOCH % 3 == 0 else logged < at
    distill(recipe, tmp_path / "run", resume=True)
    assert_equal_bits(weights(tmp_path / "run"), weights(run))
    assert metrics(tmp_path / "run") == metrics(run)


def test_a_captured_run_that_was_stopped_goes_on_to_the_bits_of_one_that_is_not_captured(whole, tmp_path, monkeypatch):
    recipe, run = whole
    recorders = []
    monkeypatch.setattr(
        "pipeline.runs.distill.recorder_of", lambda device: recorders.append(Recorded()) or recorders[-1]
    )
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, STEPS_PER_EPOCH + 2)
    distill(recipe, tmp_path / "run", resume=True)
    assert [recorder.asked.count("replay") > 3 for recorder in recorders] == [True, True]
    assert_equal_bits(weights(tmp_path / "run"), weights(run))
    assert metrics(tmp_path / "run") == metrics(run)


def test_a_finished_run_is_left_as_it_is(finished, capsys):
    recipe, run, summary = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert distill(recipe, run, resume=True) == summary
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert "is finished" in capsys.readouterr().err


def test_another_recipe_is_refused_and_told_apart_key_by_key(finished):
    recipe, run, _ = finished
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"lr": 0.2, "ema": 0.5})})
    with pytest.raises(BadRecipe) as caught:
        distill(other, run, resume=True)
    assert "train.lr: 0.05, now 0.2" in caught.value.message
    assert "train.ema: none, now 0.5" in caught.value.message
    assert "seed" not in caught.value.message


def test_a_run_keeps_the_digest_of_its_extra_images_and_goes_on_with_no_others(tmp_path, monkeypatch):
    extra = tmp_path / "extra.npz"
    recipe = small(tmp_path, f"data.extra.path={extra}", "data.extra.share=0.3")
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, 2)
    content = extra.read_bytes()
    with np.load(extra) as file:
        images, labels = file["image"], file["label"]
    np.savez(extra, image=images, label=labels[::-1])
    with pytest.raises(BadInput, match="extra training data has changed"):
        distill(recipe, tmp_path / "run", resume=True)
    extra.write_bytes(content)
    record = distill(recipe, tmp_path / "run", resume=True).extra_data
    assert record is not None
    assert (record.name, record.n, record.sha256) == ("extra", 50, read_npz(extra, split="train").sha256)
    assert read_summary(tmp_path / "run").extra_data == record


@pytest.fixture
def halfway(tmp_path, monkeypatch):
    recipe = small(tmp_path)
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, 2)
    return recipe, tmp_path / "run"


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:5], lambda data: b""])
def test_a_state_that_was_cut_short_is_refused(halfway, damage):
    recipe, run = halfway
    (run / STATE).write_bytes(damage((run / STATE).read_bytes()))
    with pytest.raises(BadInput, match="damaged"):
        distill(recipe, run, resume=True)


def test_a_state_with_one_changed_byte_is_refused(halfway):
    recipe, run = halfway
    data = bytearray((run / STATE).read_bytes())
    data[-1000] ^= 1
    (run / STATE).write_bytes(bytes(data))
    with pytest.raises(BadInput, match="digest"):
        distill(recipe, run, resume=True)


def test_a_log_that_lacks_lines_of_the_saved_state_is_refused(halfway):
    recipe, run = halfway
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"metrics\.jsonl"):
        distill(recipe, run, resume=True)


def test_other_images_under_the_same_path_are_refused(halfway):
    recipe, run = halfway
    with np.load(run.parent / "train.npz") as file:
        np.savez(run.parent / "train.npz", x=255 - file["x"], y=file["y"])
    with pytest.raises(BadInput, match="training data has changed"):
        distill(recipe, run, resume=True)


def test_what_a_killed_process_left_half_written_is_removed(halfway):
    recipe, run = halfway
    for leftover in (
        ".student.last.safetensors.01234567", ".recipe.toml.89abcdef", "state/.training.safetensors.00000000",
    ):  # fmt: skip
        (run / leftover).write_text("")
    distill(recipe, run, resume=True)
    assert list(run.rglob(".*")) == []


def test_without_resume_a_run_that_has_begun_is_refused_and_the_hint_names_the_way(halfway):
    recipe, run = halfway
    with pytest.raises(UsageFault) as caught:
        distill(recipe, run)
    assert "--resume" in caught.value.hint


def test_a_directory_that_is_no_run_is_not_resumed(tmp_path):
    recipe = small(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(UsageFault, match="not empty"):
        distill(recipe, tmp_path / "run", resume=True)


def test_to_resume_what_has_not_begun_is_to_begin(tmp_path):
    assert distill(small(tmp_path, "train.max_steps=1"), tmp_path / "run", resume=True).steps == 1


def test_an_interrupted_command_exits_130_and_says_how_to_go_on(tmp_path, monkeypatch):
    recipe, run = write_small(tmp_path), tmp_path / "run"
    command = ("distill", recipe, "--out", run, "--set", "train.max_steps=3")
    with monkeypatch.context() as patch:
        stop(patch, STEP, 1)
        result = edgeproof(*command, "--save-every", 0)
    assert result.exit_code == 130
    told = f"edgeproof distill {recipe} --set train.max_steps=3 --save-every 0 --out {run} --resume\n"
    assert f"to resume: {told}" in result.stderr
    result = edgeproof(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert "resumed after step 1" in result.stderr
    assert edgeproof(*command, "--resume").exit_code == 0
    assert edgeproof(*command, "--resume", "--set", "train.lr=0.2").exit_code == 3


def logged(run):
    """Return how many lines metrics.jsonl has, while another process writes it."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_two_processes_never_train_in_one_directory(halfway):
    recipe, run = halfway
    before = (run / STATE).read_bytes()
    with sole_writer(run), pytest.raises(UsageFault, match="another process is training in"):
        distill(recipe, run, resume=True)
    assert (run / STATE).read_bytes() == before
    with sole_writer(run.parent / "new"), pytest.raises(UsageFault, match="another process is training in"):
        distill(recipe, run.parent / "new")
    assert not (run.parent / "new").exists()


def test_a_file_system_without_locks_is_told_and_not_taken_for_another_process(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    for hold in (sole_writer, claimed):
        with pytest.raises(MissingEnvironment, match="has no locks"), hold(tmp_path):
            pass


def test_an_error_of_the_run_is_not_taken_for_another_process(tmp_path):
    with pytest.raises(BlockingIOError), sole_writer(tmp_path / "run"):
        raise BlockingIOError(errno.EAGAIN, "write could not complete without blocking")


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_all_that_a_training_run_leaves_keeps_the_umask(tmp_path, umask):
    recipe = write_small(tmp_path)
    with under(umask) as (file, directory):
        result = edgeproof(
            "distill", recipe, "--out", tmp_path / "run", "--set", "train.max_steps=1", "--save-every", 0
        )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "tensorboard").is_dir()
    assert (tmp_path / "run" / STATE).is_file()
    assert left(tmp_path / "run") == ({file}, {directory})


@pytest.mark.slow
@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.check), 2])
def test_sigterm_ends_a_run_after_the_step_with_its_state_saved(tmp_path, devices):
    recipe, run = write_small(tmp_path), tmp_path / "run"
    command = [*PROGRAM, "distill", recipe, "--out", run, "--set", "train.epochs=200", "--devices", str(devices)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and logged(run) < 4:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 130, told
    assert f"--devices {devices} --out {run} --resume" in told
    with safe_open(run / STATE, framework="pt") as file:
        standing = json.loads(file.metadata()["edgeproof"])
    assert standing["lines"] == logged(run)  # not a step is lost
    assert told.count("ending after this step") == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_at_random_moments_change_no_bit(tmp_path):
    """SIGKILL of the real process, every time at another moment: up to a dozen steps after it began to train.

    The moment is a number of steps and a fraction of one, so that it is as random on a busy machine as on an idle one;
    every fourth kill comes at any time after the start of the process, also before it trains.
    """
    recipe, run = write_small(tmp_path), tmp_path / "run"
    settings = ("--set", "train.epochs=36", "--set", "train.milestones=[20, 30]", "--set", "train.ema=0.9")
    edgeproof("distill", recipe, "--out", tmp_path / "whole", *settings)
    command = [*PROGRAM, "distill", recipe, "--out", run, *settings, "--resume", "--save-every", "0.02"]
    random = np.random.default_rng()
    reached = []
    for kill in range(20):
        target = logged(run) + random.integers(0, 12) if kill % 4 else -1
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and logged(run) < target:
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.05 if kill % 4 else 5))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        if (run / STATE).exists():
            with safe_open(run / STATE, framework="pt") as file:
                reached.append(json.loads(file.metadata()["edgeproof"])["steps"])
    print(f"steps saved at each kill: {reached}")
    assert reached == sorted(reached)
    subprocess.run(command, check=True)
    for which in ("last", "best"):
        assert_equal_bits(weights(run, which), weights(tmp_path / "whole", which))
    assert metrics(run) == metrics(tmp_path / "whole")

"""Whole runs, tiny: what they leave, what they refuse, and that they can be repeated."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from pipeline.data.sets import hold_out, load_dataset
from pipeline.methods.search import SearchSpec
from pipeline.models.checkpoint import NetworkCard, load_checkpoint, save_checkpoint
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.runs.directory import Summary
from pipeline.runs.distill import distill as distill_as_users_do
from pipeline.runs.evaluate import TorchSession, attacked, teacher_entropy
from pipeline.training.devices import training_device
from pipeline.training.precision import resolve
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.bundle.manifest import InputShape
from runtime.cli import main
from runtime.errors import BadData, BadModel, BadRecipe, NonFinite, OutOfMemory, UsageFault
from runtime.files import sha256
from runtime.images import npz
from runtime.words import percent
from tests.pipeline.runs.small_runs import assert_equal_bits, small, weights

TINY = ("student.width=0.0625", "train.max_steps=3", "train.batch=32", "search.steps=1", "data.holdout=40")

distill = partial(distill_as_users_do, allow_weak_teacher=True)  # the teacher of these tests has learned nothing


@pytest.fixture
def teacher(tmp_path):
    card = NetworkCard(
        arch="resnet18",
        width=0.0625,
        input=InputShape(channels=1, height=28, width=28),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        mean=(0.3,),
        std=(0.4,),
    )
    save_checkpoint(tmp_path / "teacher.safetensors", card.build(), card)
    return tmp_path / "teacher.safetensors"


@pytest.fixture
def recipe(teacher):
    return own_teacher(load_recipe("fashion-mini", TINY), teacher)


def own_teacher(recipe, path):
    table = type(recipe.teacher)(path=path)
    return recipe.model_copy(update={"teacher": table})


def test_a_run_leaves_everything_that_the_next_stages_need(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    summary = distill(recipe, out)
    names = {path.name for path in out.iterdir()}
    assert names == {
        "recipe.toml",
        "student.best.safetensors",
        "student.last.safetensors",
        "metrics.jsonl",
        "state",
        "tensorboard",
        "summary.json",
    }
    assert Summary.model_validate_json((out / "summary.json").read_bytes()) == summary
    device = training_device()
    assert summary.precision == ("fp32" if device.type == "cpu" else resolve("auto", device))
    assert summary.last.n == 40
    assert load_recipe(str(out / "recipe.toml")) == recipe
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == [1, 2, 3]
    assert [line["holdout_pgd"] for line in lines if "holdout_pgd" in line] == [summary.last.pgd]
    assert any((out / "tensorboard").iterdir())
    shown = capsys.readouterr()
    assert shown.out == ""
    figures = summary.last
    assert figures.teacher_entropy is not None
    assert [line["holdout_teacher_entropy"] for line in lines if "holdout_pgd" in line] == [figures.teacher_entropy]
    assert 0 < figures.teacher_entropy < np.log(10)
    assert shown.err.splitlines()[-2:] == [
        f"epoch 1: hold-out clean {percent(figures.clean)}, PGD-10 {percent(figures.pgd)}; where it errs the teacher's "
        f"entropy is {figures.teacher_entropy:.2f} nats",
        "evaluating the best and the last checkpoint",
    ]


def test_the_teachers_entropy_is_that_of_its_fp32_weights_though_it_teaches_in_bf16(tmp_path):
    recipe = small(tmp_path, "method.name=rslad", "train.precision=bf16", "train.epochs=1", "train.milestones=[]")
    found = distill(recipe, tmp_path / "run").last.teacher_entropy
    student, _ = load_checkpoint(tmp_path / "run" / "student.last.safetensors")
    teacher, card = load_checkpoint(recipe.teacher.path)
    _, holdout = hold_out(load_dataset(None, recipe.data.path, tmp_path).train, recipe.data.holdout, recipe.seed)
    where, eps = training_device(), recipe.threat.eps
    evidence = attacked(frozen(student), holdout, classes=len(card.classes), eps=eps, device=where, keep=True)
    assert found == pytest.approx(teacher_entropy(frozen(teacher), evidence, where), rel=1e-4)


def test_the_summary_says_in_what_was_searched_where_the_recipe_does(recipe, tmp_path, capsys):
    summary = distill(recipe.model_copy(update={"search": SearchSpec(steps=1, precision="bf16")}), tmp_path / "run")
    assert (summary.precision, summary.search_precision) == (resolve("auto", training_device()), "bf16")
    assert load_recipe(str(tmp_path / "run" / "recipe.toml")).search.precision == "bf16"
    assert f"{summary.precision}, search in bf16" in capsys.readouterr().err


def test_two_runs_with_one_seed_end_in_equal_bits(recipe, tmp_path):
    for name in ("a", "b"):
        distill(recipe, tmp_path / name)
    first, second = (load_file(tmp_path / name / "student.last.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_checkpoint_says_what_it_reached(recipe, tmp_path):
    summary = distill(recipe, tmp_path / "run")
    _, card = load_checkpoint(tmp_path / "run" / "student.best.safetensors")
    assert card.figures == summary.best


def test_a_directory_that_is_not_empty_is_refused_before_anything_runs(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(UsageFault, match="not empty"):
        distill(recipe, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_too_few_images_for_a_batch_name_the_hold_out_that_keeps_the_others_apart(recipe, tmp_path):
    train = recipe.train.model_copy(update={"batch": 9970})
    with pytest.raises(BadData, match=r"9960 training images .* batch of 9970: data\.holdout holds out 40 of 10000"):
        distill(recipe.model_copy(update={"train": train}), tmp_path / "run")


def test_what_comes_before_the_first_step_is_told_from_the_start(recipe, tmp_path, capsys):
    distill(recipe, tmp_path / "run")
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["fashion-mini: reading the images", "evaluating the teacher on 40 hold-out images"]
    assert said[4].startswith("epoch 1 step 1/3  loss ")


def test_a_loss_that_is_no_number_ends_the_run(recipe, tmp_path):
    wild = recipe.train.model_copy(update={"lr": 1e30})
    with pytest.raises(NonFinite, match="step"):
        distill(recipe.model_copy(update={"train": wild}), tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_teacher_of_other_images_is_refused_before_anything_is_written(recipe, teacher, tmp_path):
    network, card = load_checkpoint(teacher)
    other = card.model_copy(update={"input": InputShape(channels=1, height=32, width=32)})
    save_checkpoint(teacher, network, other)
    with pytest.raises(BadRecipe, match="input"):
        distill(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_teacher_is_refused_before_anything_is_written(recipe, tmp_path):
    with pytest.raises(BadModel, match="no teacher"):
        distill(own_teacher(recipe, tmp_path / "none.safetensors"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_weak_teacher_is_refused_before_anything_is_written_unless_that_is_allowed(recipe, teacher, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(BadModel, match="not robust") as error:
        distill_as_users_do(recipe, out)
    assert error.value.hint is not None
    assert "--allow-weak-teacher continues" in error.value.hint
    assert not out.exists()
    summary = distill_as_users_do(recipe, out, allow_weak_teacher=True)
    assert summary.teacher is not None
    assert summary.teacher.pgd < 0.15
    assert summary.teacher_sha256 == sha256(teacher.read_bytes())


def test_the_command_goes_on_with_a_weak_teacher_only_where_it_is_told_to(teacher, tmp_path):
    arguments = ["distill", "fashion-mini", "--out", str(tmp_path / "run"), "--set", f"teacher.path={teacher}"]
    arguments += [part for override in (*TINY, "train.max_steps=1") for part in ("--set", override)]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 3
    assert "not robust" in refused.stderr
    assert CliRunner().invoke(main, [*arguments, "--allow-weak-teacher"]).exit_code == 0


def test_a_robust_teacher_teaches_and_what_it_reached_goes_into_the_summary(tmp_path, capsys):
    recipe = load_recipe("fashion-mini", [*TINY, "train.max_steps=1"])
    summary = distill_as_users_do(recipe, tmp_path / "run")
    assert summary.teacher is not None
    assert summary.teacher.n == 40
    assert summary.teacher.clean >= summary.teacher.pgd > 0.5
    assert f"PGD-10 {percent(summary.teacher.pgd)}" in capsys.readouterr().err


def test_the_command_reports_figures_on_stdout_and_errors_on_stderr(teacher, tmp_path):
    arguments = ["distill", "fashion-mini", "--out", str(tmp_path / "run")]
    for override in (*TINY, "method.name=pgd-at"):
        arguments += ["--set", override]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "best: epoch 1, on 40 hold-out images: clean " in result.stdout
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    wrong = CliRunner().invoke(
        main, ["distill", "fashion-mini", "--out", str(tmp_path / "new"), "--set", "train.lr=-1"]
    )
    assert wrong.exit_code == 3
    assert "train.lr" in wrong.stderr
    no_value = CliRunner().invoke(main, ["distill", "fashion-mini", "--set", "train.lr"])
    assert no_value.exit_code == 2
    assert "'train.lr' is not of the form KEY=VALUE" in no_value.stderr
    assert not (tmp_path / "new").exists()


def test_a_training_set_that_stays_on_disk_trains_to_the_weights_of_one_in_memory(tmp_path, monkeypatch):
    recipe = small(tmp_path, "train.max_steps=2", "search.steps=1")
    distill_as_users_do(recipe, tmp_path / "memory")
    monkeypatch.setattr(npz, "LARGE", 0)
    assert isinstance(load_dataset(None, tmp_path).train.images, np.memmap)
    distill_as_users_do(recipe, tmp_path / "disk")
    assert_equal_bits(weights(tmp_path / "disk"), weights(tmp_path / "memory"))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_memory_that_runs_out_is_told_to_whoever_asks_for_fewer_images_then(error):
    class Full(torch.nn.Module):
        def forward(self, x):
            raise error

    session = TorchSession(Full(), sha256="", device=torch.device("cpu"))
    loss = cross_entropy(one_hot(torch.tensor([0]), 2))
    for ask in (session.logits, partial(session.loss_gradient, loss=loss)):
        with pytest.raises(OutOfMemory, match="memory ran out") as caught:
            ask(torch.zeros(1, 1, 2, 2))
        assert caught.value.hint


def test_another_error_of_pytorch_stays_what_it_is():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        TorchSession(Broken(), sha256="", device=torch.device("cpu")).logits(torch.zeros(1, 1, 2, 2))


def test_a_run_whose_weights_do_not_fit_the_memory_ends_with_a_way_out(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: (_ for _ in ()).throw(OUT_OF_MEMORY[0]))
    with pytest.raises(OutOfMemory, match="memory ran out: CUDA out of memory"):
        distill(recipe, tmp_path / "run")


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_run_says_that_test_images_are_among_its_training_images(mirrored, kind, tmp_path, capsys):
    recipe = small(tmp_path, "train.max_steps=1")
    with np.load(tmp_path / "test.npz") as test, np.load(tmp_path / "train.npz") as train:
        copies = test["x"][:1, :, :, ::-1] if mirrored else test["x"][:1]
        images = np.concatenate([train["x"], np.tile(copies, (15, 1, 1, 1))])
        labels = np.concatenate([train["y"], np.tile(test["y"][:1], 15)])
    images = images if kind == np.uint8 else (images / 255).astype(kind)
    np.savez(tmp_path / "train.npz", x=images, y=labels)
    distill(recipe, tmp_path / "run")
    said = capsys.readouterr().err
    assert "1 of the 20 test images are training images too" in said
    assert "accuracy on test images may be up to 5.0 points too high" in said


def test_a_run_whose_test_images_are_its_training_images_is_refused(tmp_path):
    recipe = small(tmp_path, "train.max_steps=1")
    shutil.copyfile(tmp_path / "train.npz", tmp_path / "test.npz")
    with pytest.raises(BadData, match="test images are training images too") as raised:
        distill(recipe, tmp_path / "run")
    assert "remove these from the training images" in raised.value.hint


def test_a_run_on_other_images_than_it_is_judged_on_says_nothing_of_copies(tmp_path, capsys):
    distill(small(tmp_path, "train.max_steps=1"), tmp_path / "run")
    assert "images too" not in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "said"), [(5, True), (6, False)])
def test_a_run_says_that_it_ends_before_its_second_augmentation(steps, said, tmp_path, capsys):
    recipe = small(tmp_path, f"train.max_steps={steps}", 'data.augment_switch=[1,"cropshift"]')
    distill(recipe, tmp_path / "run")
    assert ("cropshift is never used" in capsys.readouterr().err) == said

"""A batch in parts, and an average of the weights: each against what it is by definition."""

import pytest
import torch
from torch import nn

from pipeline.methods.losses import cross_entropy
from pipeline.models import build_network
from pipeline.models.checkpoint import load_checkpoint
from pipeline.models.layers import frozen
from pipeline.runs.distill import distill
from pipeline.training.trainer import Trainer
from runtime.errors import BadRecipe, MissingEnvironment
from tests.pipeline.runs.small_runs import assert_equal_bits, small, weights


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(20, 1, 8, 8, generator=generator), torch.arange(20) % 4


def trainer(directory, *overrides):
    torch.manual_seed(0)
    student = build_network("resnet18", channels=1, classes=4, width=0.0625)
    return Trainer(small(directory, *overrides), student, None, classes=4, precision="fp32")


def steps(trainer, batch, count):
    return [trainer.step(*batch, number=number, steps_per_epoch=5, steps=10).item() for number in range(count)]


def test_a_step_in_two_parts_goes_down_the_mean_of_their_gradients(tmp_path, batch):
    run = trainer(tmp_path, "train.micro_batches=2", "search.steps=0", "search.eps=0", "train.weight_decay=0")
    before = [parameter.detach().clone() for parameter in run.student.parameters()]
    gradients, losses = [], []
    for half in (slice(0, 10), slice(10, 20)):
        loss = cross_entropy(run.student(batch[0][half]), batch[1][half]).mean()
        gradients.append(torch.autograd.grad(loss, list(run.student.parameters())))
        losses.append(loss.item())
    (loss,) = steps(run, batch, 1)
    assert loss == pytest.approx(sum(losses) / 2)
    for parameter, weight, *parts in zip(run.student.parameters(), before, *gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), weight - 0.05 * (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("search_mode_of", ["pgd-at", "iad"])
def test_the_running_statistics_are_those_of_the_first_part(tmp_path, batch, search_mode_of):
    """After one step, by a trainer that never saw the second part: statistics know of no gradient."""
    runs = []
    for parts, images in ((2, slice(0, 20)), (1, slice(0, 10))):
        torch.manual_seed(0)
        student, teacher = (build_network("resnet18", channels=1, classes=4, width=0.0625) for _ in range(2))
        recipe = small(tmp_path, f"train.micro_batches={parts}", f"method.name={search_mode_of}", "search.eps=0")
        run = Trainer(recipe, student, frozen(teacher), classes=4, precision="fp32")
        steps(run, (batch[0][images], batch[1][images]), 1)
        runs.append([buffer for name, buffer in run.student.named_buffers() if "running" in name])
    for in_parts, alone in zip(*runs, strict=True):
        torch.testing.assert_close(in_parts, alone)


def test_the_noise_of_an_image_is_that_of_its_place_in_the_batch_however_it_is_divided(tmp_path, batch, monkeypatch):
    seen = {}
    for parts in (1, 2, 4):
        found = seen.setdefault(parts, [])
        monkeypatch.setattr(
            "pipeline.training.trainer.search",
            lambda _, view, noise, __, clamped, found=found: found.append(noise) or view.images,
        )
        steps(trainer(tmp_path, f"train.micro_batches={parts}"), batch, 1)
        assert len(found) == parts
    assert torch.equal(torch.cat(seen[1]), torch.cat(seen[2]))
    assert torch.equal(torch.cat(seen[1]), torch.cat(seen[4]))


@pytest.mark.parametrize("parts", [11, 20, 100])
def test_parts_of_less_than_two_images_are_refused(tmp_path, parts):
    with pytest.raises(BadRecipe, match="batch norm"):
        trainer(tmp_path, f"train.micro_batches={parts}")


TORCHS = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def without_room(monkeypatch, most, error=TORCHS):
    """Let a part of more than `most` images fail as CUDA does, half-way: statistics moved, a gradient there."""
    original = Trainer._learn

    def _learn(self, progress, share, first, images, *rest):
        learned = original(self, progress, share, first, images, *rest)
        if len(images) > most:
            raise error
        return learned

    monkeypatch.setattr(Trainer, "_learn", _learn)


@pytest.mark.parametrize(("most", "parts", "error"), [(10, 2, TORCHS), (5, 4, TORCHS), (10, 2, CUBLAS)])
def test_a_batch_that_does_not_fit_is_halved_until_it_does_as_if_asked_for_from_the_start(
    tmp_path, batch, monkeypatch, most, parts, error
):
    asked = trainer(tmp_path, f"train.micro_batches={parts}", "train.ema=0.9")
    expected = steps(asked, batch, 3)
    without_room(monkeypatch, most, error)
    halved = trainer(tmp_path, "train.ema=0.9")
    assert steps(halved, batch, 3) == expected
    assert halved.parts == parts
    assert_equal_bits(halved.student.state_dict(), asked.student.state_dict())


def test_a_part_of_two_images_that_does_not_fit_ends_the_run_with_a_way_out(tmp_path, batch, monkeypatch):
    without_room(monkeypatch, 1)
    with pytest.raises(MissingEnvironment, match="memory") as caught:
        steps(trainer(tmp_path), batch, 1)
    assert "train.batch" in caught.value.hint


def test_the_summary_says_how_many_images_a_batch_norm_saw_and_a_resumed_run_keeps_to_it(tmp_path, monkeypatch):
    recipe = small(tmp_path, "train.max_steps=3")
    assert distill(recipe, tmp_path / "one").norm_batch == 20
    with monkeypatch.context() as patch:
        without_room(patch, 10)
        assert distill(recipe, tmp_path / "halved").norm_batch == 10
    (tmp_path / "halved" / "summary.json").unlink()  # as if killed just before its end
    assert distill(recipe, tmp_path / "halved", resume=True).norm_batch == 10


def test_the_average_follows_its_definition(tmp_path, batch):
    run, expected = trainer(tmp_path, "train.ema=0.9"), None
    for number in range(4):
        run.step(*batch, number=number, steps_per_epoch=5, steps=10)
        now = [parameter.detach().clone() for parameter in run.student.parameters()]
        expected = now if expected is None else [0.9 * a + 0.1 * b for a, b in zip(expected, now, strict=True)]
    for parameter, value in zip(run.average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_the_statistics_of_the_average_are_its_own_over_the_batches(tmp_path, batch):
    run = trainer(tmp_path, "train.ema=0.9")
    steps(run, batch, 3)
    batches = [(torch.rand(20, 1, 8, 8) * scale, None) for scale in (0.5, 1.0, 2.0)]
    network = run.result(batches)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    answers = [first(images) for images, _ in batches]
    mean = torch.stack([answer.mean((0, 2, 3)) for answer in answers]).mean(0)
    variance = torch.stack([answer.var((0, 2, 3)) for answer in answers]).mean(0)
    torch.testing.assert_close(norms[0].running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norms[0].running_var, variance, rtol=1e-4, atol=1e-5)
    assert all(norm.momentum == 0.1 for norm in norms)


def test_the_average_is_evaluated_and_saved_and_changes_nothing_in_the_training(tmp_path):
    averaged, plain = (small(tmp_path, *overrides) for overrides in (("train.ema=0.5",), ()))
    distill(averaged, tmp_path / "averaged")
    distill(plain, tmp_path / "plain")
    saved, state = weights(tmp_path / "averaged"), "state/training.safetensors"
    from safetensors.torch import load_file

    there, without = (load_file(tmp_path / run / state) for run in ("averaged", "plain"))
    assert all(torch.equal(there[f"student.{name}"], without[f"student.{name}"]) for name in saved)
    assert all(torch.equal(there[f"average.module.{name}"], saved[name]) for name in saved)
    assert not torch.equal(saved["head.weight"], weights(tmp_path / "plain")["head.weight"])
    assert load_checkpoint(tmp_path / "averaged" / "student.best.safetensors")[1].figures is not None


@pytest.mark.parametrize(("value", "decay"), [("true", 0.999), ("false", None), ("0.99", 0.99)])
def test_an_average_is_asked_for_by_its_decay_or_by_true_for_the_usual_one(tmp_path, value, decay):
    assert small(tmp_path, f"train.ema={value}").train.ema == decay


@pytest.mark.parametrize("value", ["1", "0", "-0.5", "'often'"])
def test_a_decay_that_is_none_is_refused(tmp_path, value):
    with pytest.raises(BadRecipe, match=r"train\.ema"):
        small(tmp_path, f"train.ema={value}")


def test_a_defect_is_not_taken_for_a_batch_that_does_not_fit(tmp_path, batch, monkeypatch):
    without_room(monkeypatch, 1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        steps(trainer(tmp_path), batch, 1)


@pytest.mark.slow
def test_a_compiled_step_is_the_eager_one_up_to_rounding(tmp_path, batch):
    eager, compiled = (
        steps(trainer(tmp_path, f"train.compile={flag}", "train.lr=0.001"), batch, 3) for flag in ("false", "true")
    )
    assert compiled == pytest.approx(eager, rel=1e-3)

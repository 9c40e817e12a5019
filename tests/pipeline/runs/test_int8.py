"""A finished student that is trained on through the rounding of its int8 export."""

import shutil

import pytest
import torch
from click.testing import CliRunner

from pipeline.data.sets import hold_out, load_dataset
from pipeline.models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.models.layers import Folded
from pipeline.models.quantised import Quantised
from pipeline.recipe.schema import load_recipe
from pipeline.runs.directory import read_summary
from pipeline.runs.distill import distill
from pipeline.runs.evaluate import attacked
from runtime.cli import main
from runtime.errors import BadInput, BadModel, BadRecipe
from runtime.files import sha256
from tests.pipeline.runs.small_runs import STEPS_PER_EPOCH, assert_equal_bits, metrics, small, weights
from tests.pipeline.runs.test_resume import STEP, stopped

CALIBRATED, DEVICE = 100, torch.device("cpu")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A directory with a finished run `start`, and a run `whole` that went on from it through int8."""
    directory = tmp_path_factory.mktemp("int8")
    distill(small(directory, "train.epochs=1"), directory / "start")
    distill(through_int8(directory), directory / "whole")
    return directory


def through_int8(directory, *overrides):
    start = f"int8.start={directory}/start"
    return load_recipe(str(directory / "small.toml"), (start, f"int8.images={CALIBRATED}", "train.lr=0.01", *overrides))


def test_a_stopped_run_goes_on_to_equal_bits(begun, tmp_path, monkeypatch):
    recipe = through_int8(begun)
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, STEPS_PER_EPOCH + 2)
    distill(recipe, tmp_path / "run", resume=True)
    for which in ("last", "best"):
        assert_equal_bits(weights(tmp_path / "run", which), weights(begun / "whole", which))
    assert metrics(tmp_path / "run") == metrics(begun / "whole")


def test_the_statistics_stand_still_and_the_weights_move(begun):
    before, after = weights(begun / "start", "best"), weights(begun / "whole")
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert statistics
    assert {name for name in before if not before[name].equal(after[name])} == set(before) - statistics


def test_its_figures_are_those_of_the_rounded_network(begun, tmp_path):
    recipe, summary = through_int8(begun), read_summary(begun / "whole")
    training, holdout = hold_out(load_dataset(None, begun, begun).train, recipe.data.holdout, recipe.seed)
    assert len(training) == CALIBRATED  # so that every training image calibrates, whatever is drawn
    network, card = load_checkpoint(begun / "whole" / "student.last.safetensors")
    quantised = Quantised(network.eval())
    quantised.calibrate([torch.from_numpy(training.as_float(slice(None)))])
    lender, classes = Folded(network), len(card.classes)
    evidence = attacked(quantised, holdout, classes=classes, eps=recipe.threat.eps, device=DEVICE, lender=lender)
    assert float(evidence.robust.mean()) == summary.last.pgd
    assert float(evidence.correct.mean()) == summary.last.clean


def test_the_summary_names_the_checkpoint_that_it_began_with(begun):
    start = sha256((begun / "start" / "student.best.safetensors").read_bytes())
    assert read_summary(begun / "whole").start_sha256 == start
    assert read_summary(begun / "start").start_sha256 is None


def test_another_start_is_not_the_same_run(begun, tmp_path, monkeypatch):
    recipe = through_int8(begun)
    stopped(recipe, tmp_path / "run", monkeypatch, STEP, 2)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.runs.start.sha256", lambda data: "0" * 64)
        with pytest.raises(BadInput, match=r"start of \[int8\] has changed"):
            distill(recipe, tmp_path / "run", resume=True)


def test_a_start_of_another_network_is_refused(begun, tmp_path):
    with pytest.raises(BadRecipe, match=r"int8\.start: .* has width = 0\.0625, and this recipe makes 0\.125"):
        distill(through_int8(begun, "student.width=0.125"), tmp_path / "run")
    with pytest.raises(BadModel, match="there is no checkpoint"):
        distill(through_int8(begun, f"int8.start={begun}/nowhere"), tmp_path / "run")
    network, card = load_checkpoint(begun / "start" / "student.best.safetensors")
    other = card.model_copy(update={"classes": ("a", "b", "c", "d")})
    save_checkpoint(begun / "other.safetensors", network, other)
    with pytest.raises(BadRecipe, match="has classes"):
        distill(through_int8(begun, f"int8.start={begun}/other.safetensors"), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_a_start_that_has_trained_on_the_hold_out_is_refused(begun, tmp_path):
    for override in ("seed=1", "data.holdout=40"):
        with pytest.raises(BadRecipe, match=r"int8\.start: .* was trained on other images"):
            distill(through_int8(begun, override), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_of_a_start_that_does_not_say_what_it_was_trained_on_that_is_said(begun, tmp_path, capsys):
    alone = tmp_path / "alone.safetensors"
    shutil.copy(begun / "start" / "student.best.safetensors", alone)
    distill(through_int8(begun, f"int8.start={alone}", "train.max_steps=1"), tmp_path / "run")
    assert "its hold-out figures may be of images that it was trained on" in capsys.readouterr().err


def test_a_bundle_says_that_its_figures_are_of_the_rounded_network_and_names_its_start_and_no_place(begun, tmp_path):
    summary = read_summary(begun / "whole")
    for run, rounded in (("start", False), ("whole", True)):
        arguments = ["export", str(begun / run), "--out", str(tmp_path / run), "--data-root", str(begun)]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        card = (tmp_path / run / "MODEL_CARD.md").read_text()
        assert ("rounded to int8" in card) is rounded
        assert ("hold-out images, rounded to int8" in card.split("---")[1]) is rounded
        assert str(begun) not in (tmp_path / run / "manifest.json").read_text()
        shown = CliRunner().invoke(main, ["inspect", str(tmp_path / run)]).stdout
        assert (f"trained on through int8 from: sha256 `{summary.start_sha256}`" in card) is rounded
        assert (f"trained on through int8 from the checkpoint with sha256 {summary.start_sha256}" in shown) is rounded


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.precision=bf16", "rounds in fp32"),
        ("search.precision=bf16", "rounds in fp32"),
        ("train.ema=0.9", "averages weights"),
        ("method.name=adr", "averages weights"),
        ("train.compile=true", r"train\.compile cannot be combined"),
        ("train.awp=0.01", r"train\.awp cannot be combined"),
    ],
)
def test_what_int8_cannot_be_combined_with_is_refused(begun, override, says):
    with pytest.raises(BadRecipe, match=says):
        through_int8(begun, override)

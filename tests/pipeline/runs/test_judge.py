"""The best and the last checkpoint of a run under one attack."""

import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.models.layers import Folded
from pipeline.runs.directory import CHECKPOINTS, Judged, Summary
from pipeline.runs.distill import distill
from pipeline.runs.evaluate import attacked, holdout_accuracy
from pipeline.runs.judge import JUDGE, judge
from runtime.images.image_set import ImageSet
from tests.pipeline.runs.small_runs import CARD, images_of_four_kinds, small, taught

EPS, CPU = 8 / 255, torch.device("cpu")


@pytest.fixture
def images():
    pixels, labels = images_of_four_kinds()["train"]
    return ImageSet("kinds", pixels, labels.astype(np.int64), np.arange(len(labels)))


def test_both_checkpoints_are_judged_by_one_attack_and_their_difference_is_the_overfitting(tmp_path, images):
    best, last = tmp_path / CHECKPOINTS["best"], tmp_path / CHECKPOINTS["last"]
    save_checkpoint(best, taught(), CARD)
    save_checkpoint(last, CARD.build(), CARD)
    judged = judge(tmp_path, images, eps=EPS, device=CPU)
    reached = [
        float(
            attacked(
                Folded(load_checkpoint(path)[0]), images, classes=4, eps=EPS, device=CPU, attack=JUDGE
            ).robust.mean()
        )
        for path in (best, last)
    ]
    assert [judged.best, judged.last] == reached
    assert judged.overfitting == reached[0] - reached[1] > 0.2
    assert (judged.attack, judged.n) == ("pgd-20", 120)
    assert judged.best <= holdout_accuracy(Folded(taught()), images, classes=4, eps=EPS, device=CPU)[1] + 0.02
    shutil.copy(best, last)
    same = judge(tmp_path, images, eps=EPS, device=CPU)
    assert (same.best, same.last, same.overfitting) == (reached[0], reached[0], 0.0)


def test_the_judge_takes_twice_the_steps_of_pgd_10_from_another_start():
    assert (JUDGE.name, JUDGE.defaults["steps"]) == ("pgd-20", 20)


@pytest.mark.parametrize(
    ("best", "last", "says"),
    [
        (0.5, 0.47, "PGD-20: best 50.0 %, last 47.0 %: robust overfitting of 3.0 points"),
        (0.5, 0.5, "PGD-20: best 50.0 %, last 50.0 %: no robust overfitting"),
        (0.5, 0.52, "PGD-20: best 50.0 %, last 52.0 %: no robust overfitting"),
    ],
)
def test_the_difference_is_said_in_words(best, last, says):
    assert str(Judged(attack="pgd-20", n=100, best=best, last=last, overfitting=best - last)) == says


def test_a_summary_keeps_what_was_judged_and_one_of_an_earlier_version_is_read(tmp_path):
    recipe = small(tmp_path, "train.max_steps=6")
    summary = distill(recipe, tmp_path / "run")
    assert summary.judged is not None
    assert summary.judged.n == recipe.data.holdout
    assert summary.best.teacher_entropy is None  # PGD-AT has no teacher
    earlier = summary.model_dump(mode="json", exclude={"judged": True, "best": {"teacher_entropy"}})
    assert Summary.model_validate(earlier) == summary.model_copy(update={"judged": None})
    with pytest.raises(ValidationError):
        Summary.model_validate({**earlier, "judged": {"best": 1.0}})

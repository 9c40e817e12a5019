"""What a card alone can tell of training: that a captured step is the step as it is, and that nothing waits in it."""

import json

import pytest
import torch

from pipeline.methods import METHODS
from tests.gpu.conftest import answer, edgeproof

pytestmark = pytest.mark.gpu

RUN = """
import os
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
import json, sys
import torch
from pipeline.methods import METHODS
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.training.graphs import recorder_of
from pipeline.training.trainer import Trainer

device = torch.device("cuda")
torch.backends.cudnn.deterministic = True
images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
images = images.to(device, memory_format=torch.channels_last)
labels = torch.arange(32, device=device) % 10

def trainer(method, precision, recorder, *settings):
    usual = [f"method.name={method}", "search.steps=3", "train.batch=32", "train.lr=0.01"]
    recipe = load_recipe("fashion-mini", [*usual, *settings])
    torch.manual_seed(0)
    student, teacher = (build_network(arch, channels=3, classes=10, width=0.5) for arch in ("resnet18", "mobilenet_v2"))
    guide = frozen(teacher).to(device) if METHODS[method].needs_teacher else None
    learner = student.to(device, memory_format=torch.channels_last)
    return Trainer(recipe, learner, guide, classes=10, precision=precision, recorder=recorder)

def step(run, number, steps=10):
    return run.step(images, labels, number=number, steps_per_epoch=5, steps=steps)

def captured(run):
    works = (run._folding, run._searching, run._learning)
    return [work._replay is not None for work in works]
"""

EQUAL = (
    RUN
    + """
method, precision, *settings = sys.argv[1:]
eager, replayed = (trainer(method, precision, how, *settings) for how in (None, recorder_of(device)))
losses = [[step(run, number).item() for number in range(6)] for run in (eager, replayed)]
weights = [torch.cat([weight.detach().flatten() for weight in run.student.parameters()]) for run in (eager, replayed)]
apart = float((weights[0] - weights[1]).norm() / weights[0].norm())
print(json.dumps({"losses": losses, "apart": apart, "captured": captured(replayed)}))
"""
)

WAITING = (
    RUN
    + """
import numpy as np
from pipeline.data.batches import Batches
from runtime.images.image_set import ImageSet

pixels = np.random.default_rng(0).integers(0, 256, (32 * 8, 3, 32, 32), np.uint8)
noise = ImageSet("noise", pixels, np.arange(256) % 10, np.arange(256))
batches = Batches(noise, 32, crop=4, flip=True, seed=0, device=device)
run = trainer(sys.argv[1], "bf16", recorder_of(device) if sys.argv[2] == "captured" else None)
for number, (images, labels) in enumerate(batches.epoch(0)):
    if number == 3:
        torch.cuda.set_sync_debug_mode("error")
    loss = step(run, number, steps=100)
torch.cuda.set_sync_debug_mode("default")
print(json.dumps(loss.item()))
"""
)


@pytest.fixture
def cuda(card):
    """A card that PyTorch can train on."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")


@pytest.mark.parametrize("settings", [(), ("train.awp=0.005",)], ids=["plain", "awp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_captured_step_is_the_step_as_it_is_through_both_phases(cuda, method, precision, settings):
    found = answer(EQUAL, method, precision, *settings)
    folds = METHODS[method].search_mode == "eval"
    assert found["captured"] == [folds, True, True]
    eager, replayed = found["losses"]
    assert replayed == pytest.approx(eager, rel=1e-3)
    assert found["apart"] < 1e-3


@pytest.mark.parametrize("how", ["captured", "as it is"])
@pytest.mark.parametrize("method", METHODS)
def test_no_step_and_no_batch_waits_for_the_card(cuda, method, how):
    assert answer(WAITING, method, how) > 0


def test_a_run_is_captured_whole_and_says_of_nothing_that_it_is_not(cuda, tmp_path):
    result = edgeproof("distill", "fashion-mini", "--set", "train.max_steps=30", "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "without a CUDA graph" not in result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == list(range(1, 31))

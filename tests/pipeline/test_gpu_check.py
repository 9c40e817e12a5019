"""The training check, with the CPU in the GPU's place."""

import pytest
import torch

from pipeline import gpu_check
from pipeline.gpu_check import compared, training
from runtime.errors import MissingEnvironment

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gpu_check, "STEPS", 1)
    monkeypatch.setattr(gpu_check, "BATCH", 8)
    monkeypatch.setattr(gpu_check, "SIDE", 8)
    monkeypatch.setattr(gpu_check, "OVERRIDES", (*gpu_check.OVERRIDES, "train.batch=8"))


def test_a_device_agrees_with_itself_and_every_precision_is_tried():
    result = compared(CPU)
    assert result.state == "agrees", result
    assert result.figures["loss apart"] == 0
    assert result.figures["cosine of gradients"] == pytest.approx(1)
    assert {"fp32: loss", "bf16: loss", "fp32: images a second"} <= result.figures.keys()


def test_a_device_that_computes_otherwise_is_found(monkeypatch):
    honest, asked = gpu_check.differentiated, []

    def crooked(*arguments):
        asked.append(arguments)
        loss, gradient = honest(*arguments)
        return (loss, gradient) if len(asked) == 1 else (loss, gradient.flip(0))

    monkeypatch.setattr(gpu_check, "differentiated", crooked)
    result = compared(CPU)
    assert (result.state, result.figures["loss apart"]) == ("differs", 0)


def test_a_loss_that_is_no_number_is_found(monkeypatch):
    monkeypatch.setattr(gpu_check, "stepped", lambda *arguments: (float("nan"), 1.0))
    assert compared(CPU).state == "differs"


def test_without_a_gpu_it_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingEnvironment, match="finds no GPU"):
        training(None)

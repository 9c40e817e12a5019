"""The arithmetic of training: what a processor only emulates, and that a run says so."""

import pytest
import torch

from pipeline.runs.distill import distill
from pipeline.training.precision import emulates_bf16
from tests.pipeline.runs.small_runs import small

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("known", "emulated"),
    [
        ({"avx512_bf16": False}, True),
        ({"avx512_bf16": True}, False),
        ({"avx512_bf16": False, "amx_bf16": True}, False),
        ({"avx512_bf16": False, "avx_ne_convert": True}, False),
        ({"bf16": False}, False),
        ({}, False),
    ],
)
def test_bf16_is_emulated_on_an_x86_processor_without_its_instructions(known, emulated, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert emulates_bf16(CPU) is emulated
    assert not emulates_bf16(torch.device("cuda"))


def test_an_older_pytorch_that_does_not_say_is_believed_to_have_them(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not emulates_bf16(CPU)


@pytest.mark.parametrize("setting", ["train.precision", "search.precision"])
def test_a_run_in_emulated_bf16_says_that_fp32_is_faster(setting, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    distill(small(tmp_path, "train.max_steps=1", f"{setting}=bf16"), tmp_path / "run")
    assert "emulates bf16, slower than fp32" in capsys.readouterr().err


def test_a_run_in_fp32_says_nothing_of_bf16(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    distill(small(tmp_path, "train.max_steps=1"), tmp_path / "run")
    assert "bf16" not in capsys.readouterr().err

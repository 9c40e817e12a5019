"""The examples of docs/reference/python.md run as they are written."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from tests.paths import ROOT
from tests.tiny import FORWARD, graph, linear_task

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reference" / "python.md").read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_is_judged_and_attacked(here):
    weight, bias, images, labels = linear_task()
    (here / "model.onnx").write_bytes(graph(FORWARD, weight, bias))
    np.savez("test.npz", x=images, y=labels)
    names = {}
    exec(compile(EXAMPLES[0], "python.md", "exec"), names)
    assert names["broken"].shape == labels.shape
    assert names["points"].shape == images.shape
    assert (here / "report.html").is_file()


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    )


def test_a_loop_trains_a_student_that_is_exported_and_judged(here):
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 3, 8, 8), np.float32), rng.integers(0, 3, 40)
    loader = [(torch.from_numpy(x[:20]), torch.from_numpy(y[:20]))] * 2
    names = {"student": net(0), "teacher": net(1), "loader": loader, "x_test": x, "y_test": y}
    exec(compile(EXAMPLES[1], "python.md", "exec"), names)
    assert names["verdict"].outcome in ("failed", "inconclusive")
    assert set(names["bundle"].manifest.graphs) == {"fp32", "fp16"}

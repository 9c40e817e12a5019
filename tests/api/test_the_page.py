"""The examples of the Python reference and of the README run as written, and every public name is there."""

import inspect
import re

import numpy as np
import pytest
import torch
from torch import nn

import edgeproof as ep
from tests.paths import ROOT
from tests.tiny import FORWARD, graph, linear_task

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


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


def test_the_readmes_example_asks_for_its_gate(here):
    weight, bias, x, y = linear_task()
    (here / "model.onnx").write_bytes(graph(FORWARD, weight, bias))
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with pytest.raises(AssertionError) as caught:
        exec(compile(example, "README.md", "exec"), {"x": x, "y": y})
    assert "failed: clean" in str(caught.value)


def test_every_public_name_is_on_the_page():
    members = {name for line in re.findall(r"members: \[(.*)\]", PAGE) for name in line.split(", ")}
    assert set(ep.__all__) - {"methods"} <= members
    assert "::: edgeproof.methods" in PAGE


def own(kind):
    """Return the public functions, properties and methods of a class that it does not inherit from Python's."""
    return [
        getattr(member, "fget", None) or getattr(member, "func", None) or member
        for name, member in vars(kind).items()
        if not name.startswith("_") and (callable(member) or isinstance(member, property) or hasattr(member, "func"))
    ]


def test_every_public_name_and_method_says_what_it_does():
    kinds = [ep.Verdict, *(getattr(ep.methods, name) for name in ep.methods.__all__)]
    named = [ep.verify, ep.attack, ep.export, *kinds, *(member for kind in kinds for member in own(kind))]
    assert not [each.__qualname__ for each in named if not inspect.getdoc(each)]
    for function in (ep.verify, ep.attack, ep.export):
        told = inspect.getdoc(function)
        assert "Raises:" in told
        assert not [name for name in inspect.signature(function).parameters if f"{name}: " not in told]

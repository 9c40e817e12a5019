"""A stand-in of onnxruntime-gpu."""

import sys

import pytest

from tests.runtime.backends.fake_onnxruntime import GPU, FakeRuntime


@pytest.fixture
def runtime(monkeypatch):
    """Return a function that puts a stand-in in ONNX Runtime's place."""

    def install(*works, **changes):
        fake = FakeRuntime(works, **changes)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        return fake

    monkeypatch.setattr("runtime.machine.driver.probe", lambda: GPU)
    return install

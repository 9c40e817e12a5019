"""A stand-in of a card."""

import onnxruntime
import pytest

from runtime.backends.providers import PROVIDERS
from tests.runtime.backends.fake_onnxruntime import GPU, FakeCard


@pytest.fixture
def card(monkeypatch):
    """Return a function that puts a card in this machine."""

    def install(**changes):
        fake = FakeCard(**changes)
        monkeypatch.setattr("runtime.machine.driver.probe", lambda: GPU)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [kind.name for kind in PROVIDERS.values()])
        monkeypatch.setattr(onnxruntime, "InferenceSession", fake.open)
        monkeypatch.setattr(onnxruntime, "OrtValue", fake.values)
        return fake

    return install

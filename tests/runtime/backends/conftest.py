"""Every test begins as a process does that has not used a GPU yet."""

import pytest

from runtime.backends import tf32


@pytest.fixture(autouse=True)
def gpu_not_used_yet(monkeypatch):
    """Forget what earlier sessions settled; call it to begin anew within a test."""

    def begin():
        monkeypatch.setenv(tf32.SWITCH, "")
        monkeypatch.setattr(tf32, "_settled", [])

    begin()
    return begin

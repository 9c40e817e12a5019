"""TF32 is settled before a GPU is used: the switch that NVIDIA's libraries read, and what a process may then ask."""

import os

import pytest

from runtime.errors import UsageFault
from runtime.machine.tf32 import SWITCH, settle_tf32


@pytest.mark.parametrize(("tf32", "switch"), [(False, "0"), (True, "")])
def test_tf32_is_off_in_all_libraries_unless_it_is_asked_for(tf32, switch):
    settle_tf32(tf32)
    settle_tf32(tf32)
    assert os.environ[SWITCH] == switch


def test_tf32_that_the_environment_forbids_is_refused(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    with pytest.raises(UsageFault, match="forbids --tf32"):
        settle_tf32(True)


@pytest.mark.parametrize("first", [False, True])
def test_what_is_settled_stays(first):
    settle_tf32(first)
    with pytest.raises(UsageFault, match="with TF32 already" if first else "without TF32 already"):
        settle_tf32(not first)

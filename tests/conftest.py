"""What holds for all tests."""

import logging
import os

import pytest
from hypothesis import settings

from runtime.terminal.log import VARIABLE, log

# A deadline would make a busy machine fail them: no test here is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config):
    """Tests mean the CPU, but those that are marked `gpu`: what picks its device finds none, in every process.

    Run those by `-m gpu`. Ray starts its workers with niceness 15: on a busy machine they would not end in time.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def verbosity_as_before(monkeypatch):
    """Begin with the usual verbosity, and end what -q and -v said to this process."""
    monkeypatch.setenv(VARIABLE, "")
    yield
    log.setLevel(logging.INFO)


@pytest.fixture
def said(caplog):
    """Keep the log lines of the project, which do not reach the root logger that pytest listens to."""
    logger = logging.getLogger("edgeproof")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "edgeproof")
    yield caplog
    logger.removeHandler(caplog.handler)

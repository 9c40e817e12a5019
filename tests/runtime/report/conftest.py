"""Run directories to be written down: one as `verify` leaves it, and others beside it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, GRADIENT, bundle_files, graph, linear_task

HOSTILE = ('<script>alert("1")</script>', "a|b `c` *d* &amp; \"e\" 'f'", "c")
"""Names of classes that a page must not take for its own."""
ATTACKS = ["--attacks", "fgsm,pgd,cw"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A gated run of a bundle whose classes have hostile names, against another artifact's; an eps of another run."""
    place = tmp_path_factory.mktemp("made")
    weight, bias, images, labels = linear_task()
    files = bundle_files((weight, bias, images, labels))
    bundle = write_bundle(place / "bundle", files, n=60, classes=HOSTILE)
    other = weight + np.random.default_rng(1).normal(scale=0.3, size=weight.shape).astype(np.float32)
    weaker = {
        **files,
        "model.fp32.onnx": graph(FORWARD, other, bias),
        "model.fp32.grad.onnx": graph(GRADIENT, other, bias),
    }
    second = write_bundle(place / "weaker", weaker, n=60, classes=HOSTILE)
    gate = ["--fail-under", "1%"]
    against = ["--against", place / "other", "--max-drop", "99%"]
    assert edgeproof("verify", second, *ATTACKS, "--out", place / "other").exit_code == 0
    result = edgeproof("verify", bundle, *ATTACKS, *gate, *against, "--out", place / "run")
    assert result.exit_code == 0, result.stderr
    assert edgeproof("verify", bundle, *ATTACKS, "--eps", "0.02", "--out", place / "farther").exit_code == 0
    return place


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run, to be written to."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))

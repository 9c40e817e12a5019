"""A bundle of all precisions, and the ways to run it on a card; each is left out, with its reason, where it is missing.

Every test runs what it asks in processes of its own: TF32 is settled once a process, and memory is that of a process.
"""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from export.bundle.write import Claims, Precision, write_bundle
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from export.precision.candidate import Candidate
from export.precision.table import PRECISIONS
from runtime.backends.table import provider_of
from runtime.bundle.manifest import InputShape
from runtime.errors import MissingEnvironment
from runtime.images.image_set import ImageSet
from runtime.machine import driver
from runtime.spec import ThreatModel
from tests.export.classifiers import SIDE, seeded_network
from tests.export.precision.test_precision import CALIBRATION
from tests.paths import ROOT

N, CLASSES = 1024, 10
ENGINES = {
    "tensorrt": ("tensorrt", provider_of("tensorrt", None)),
    "ort-cuda": ("ort", "cuda"),
    "ort-tensorrt": ("ort", "tensorrt"),
}
"""Backend and provider, by the check of `gpu-check` that compares them."""
MISSING = 4
"""The exit code of what is not there."""


@pytest.fixture(scope="session")
def card():
    """What the driver says of the card."""
    try:
        return driver.probe()
    except MissingEnvironment as error:
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def bundle(card, tmp_path_factory):
    """A bundle of a small network in every precision, whose labels are its own answers."""
    forward = to_onnx(seeded_network("resnet18"), InputShape(channels=1, height=SIDE, width=SIDE))
    precisions = {}
    for name, precision in PRECISIONS.items():
        made = precision.make(Candidate(forward), CALIBRATION)[0]
        precisions[name] = Precision(made.forward.model, made.gradient)
    images = np.random.default_rng(0).integers(0, 256, (N, 1, SIDE, SIDE), dtype=np.uint8)
    session = onnxruntime.InferenceSession(to_bytes(forward.model), providers=["CPUExecutionProvider"])
    logits = np.concatenate(
        [session.run(["logits"], {"input": np.float32(part) / 255})[0] for part in np.split(images, 16)]
    )
    out = tmp_path_factory.mktemp("gpu") / "bundle"
    write_bundle(
        out,
        precisions=precisions,
        evaluation=ImageSet("noise", images, logits.argmax(axis=1), np.arange(N)),
        reference_logits=logits,
        claims=Claims(name="noise", classes=tuple(map(str, range(CLASSES))), threat_model=ThreatModel(eps=1 / 255)),
    )
    return out


@pytest.fixture(scope="session")
def state(tmp_path_factory):
    """Where engines are kept for all tests: building them takes minutes."""
    return tmp_path_factory.mktemp("state")


def python(code, *arguments):
    """Run code, which finds the arguments in sys.argv, in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def edgeproof(*arguments):
    """Run a command in a process of its own."""
    return python("from runtime.cli import main; main(prog_name='edgeproof')", *arguments)


def answer(code, *arguments):
    """Return what code prints as JSON; it must end well, and say nothing else."""
    result = python(code, *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request, bundle, state):
    """(Name of the check, backend, provider), of those that are here."""
    backend, provider = ENGINES[request.param]
    short = ("--precision", "fp32", "--batch", 1, "--seconds", 0.1, "--idle", 0)
    asked = ("--backend", backend, "--provider", provider, "--state", state)
    result = edgeproof("bench", bundle, *asked, *short, "--json")
    if result.returncode == MISSING:
        pytest.skip(result.stderr.splitlines()[0].removeprefix("error: "))
    assert result.returncode == 0, result.stderr
    return request.param, backend, provider

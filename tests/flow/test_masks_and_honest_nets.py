"""The masks of masks.py, and honest networks of many kinds: what the checks of a gated run say of each.

docs/reference/checks.md has the table that these tests hold.
"""

import numpy as np
import pytest
import torch

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from pipeline.data.sets import load_dataset
from pipeline.runs.evaluate import TorchSession, placement
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import InputShape
from runtime.checks.table import check
from runtime.images.image_set import ImageSet
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from runtime.verdict.case import verify
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject
from tests.fakes import artifact, planned
from tests.flow.honest_nets import HONEST, Nets
from tests.flow.masks import MASKS
from tests.flow.plants import CLASSES, EPS

pytestmark = pytest.mark.slow

N = 64
CPU = torch.device("cpu")
OF_THE_SAMPLE = "enough-images"
"""The check that speaks of how many images survived, not of the network."""
HOLDS, STEADY, JUMPS, BLIND = "gradient-holds", "gradient-steady", "margin-jumps", "blind-control"
FOUND_BY = {name: {HOLDS} for name in MASKS} | {
    "input rounding": {HOLDS, STEADY, JUMPS, BLIND},
    "thermometer": {HOLDS, STEADY, JUMPS, BLIND},
    "round staircase": {HOLDS, STEADY, JUMPS},
    "floor staircase": {HOLDS, STEADY, JUMPS},
    "sign staircase": {HOLDS, STEADY, JUMPS},
    "where staircase": {HOLDS, STEADY, JUMPS},
    "large number staircase": {HOLDS, JUMPS},
    "large number staircase, clean": {HOLDS, JUMPS},
    "staircase and shortcut": {HOLDS, JUMPS},
    "staircase and shortcut, clean": {HOLDS, JUMPS},
    "shattered input": {HOLDS, STEADY},
    "shattered input, clean": {HOLDS, STEADY},
    "input ripple": {HOLDS, STEADY},
    "input ripple, clean": {HOLDS, STEADY},
    "decoy": {JUMPS},
    "decoy, clean": {JUMPS},
    "decoy, one class far away, clean": {JUMPS},
    "steep decoy, clean": {JUMPS},
    "k winners take all": {HOLDS, JUMPS},
    "k winners take all, clean": {HOLDS, JUMPS},
}
"""Mask: the checks that must find it; others may too."""
QUICK = (
    "input rounding",
    "round staircase",
    "large number staircase, clean",
    "staircase and shortcut, clean",
    "turned in the ball, clean",
    "dropped branch, clean",
    "another network's gradient",
    "ReLU' is 1",
    "shuffled gradient",
    "shattered input, clean",
    "rippling logits, clean",
    "input ripple, clean",
    "decoy, clean",
    "decoy, one class far away, clean",
    "steep decoy, clean",
    "k winners take all, clean",
)
"""One mask of each kind: those that `make check` looks at."""
EXPORTED = ("relu", "vit, clean", "logits x1000")
"""Honest networks that are asked as exported graphs, the others in PyTorch."""


def some_checked(names, checked):
    return [pytest.param(name, marks=[pytest.mark.check] if name in checked else []) for name in names]


@pytest.fixture(scope="module")
def data():
    return load_dataset("fashion-mini", None)


@pytest.fixture(scope="module")
def images(data):
    return ImageSet("test", data.test.images[:N], data.test.labels[:N].astype(np.int64), np.arange(N))


@pytest.fixture(scope="module")
def nets(data):
    part = slice(0, 4000)
    return Nets(torch.from_numpy(data.train.as_float(part)), torch.from_numpy(data.train.labels[part]).long())


def in_torch(network):
    return TorchSession(network.eval(), sha256="0" * 64, device=CPU), placement(CPU)


def exported(network):
    forward = to_onnx(network.eval(), InputShape(channels=1, height=28, width=28))
    return OrtSession(to_bytes(forward.model), to_bytes(gradient_graph(forward)), precision="fp32"), np.asarray


def states(session, place, images):
    target = Target(session, images, CLASSES, N, place)
    outcome = run_suite(
        target,
        planned(target, ["fgsm", "pgd"]),
        eps=EPS,
        seed=0,
        keep_all=False,
        progress=Silent(),
        searched=np.arange(N),
    )
    found = check(outcome, classes=CLASSES, artifact=artifact(), gated=True)
    print({each.check: each.message for each in found if each.state == "found"}, outcome.blind_control)
    return {each.check: each.state for each in found if each.blocking and each.check != OF_THE_SAMPLE}


@pytest.mark.parametrize("mask", some_checked(MASKS, QUICK))
def test_a_mask_is_found_by_the_checks_that_are_for_it(mask, nets, images):
    bank = torch.from_numpy(images.as_float(np.arange(N)))
    seen = states(*in_torch(MASKS[mask](nets, bank)), images)
    assert FOUND_BY[mask] <= {name for name, state in seen.items() if state == "found"}


@pytest.mark.parametrize("kind", some_checked(HONEST, HONEST))
def test_an_honest_network_is_quiet(kind, nets, images):
    seen = states(*(exported if kind in EXPORTED else in_torch)(HONEST[kind](nets)), images)
    assert [name for name, state in seen.items() if state == "found"] == []


@pytest.mark.parametrize("early", [False, True], ids=["all images", "until decided"])
@pytest.mark.check
@pytest.mark.parametrize("mask", ["rippling logits, clean", "input ripple, clean"])
def test_few_images_of_a_rippling_network_pass_no_gate(mask, early, nets, images):
    report = judged(MASKS[mask](nets, None), images, 0.3, until_decided=early)
    assert report.robust_accuracy.value > 0.4
    assert report.verdict == "inconclusive"


@pytest.mark.check
def test_few_images_of_an_honest_network_pass_a_gate_that_is_far_enough_alone(nets, images):
    network = HONEST["relu"](nets)
    low = judged(network, images, 0.01).robust_accuracy.ci95[0]
    near, far = judged(network, images, low - 0.03), judged(network, images, low - 0.15)
    assert (near.verdict, far.verdict) == ("inconclusive", "passed")
    assert "attacks may have missed up to" in near.reasons[0]


def judged(network, images, gate, **options):
    """Return the report of sixty images under a gate."""
    session, place = in_torch(network)
    classes = tuple(str(number) for number in range(CLASSES))
    subject = Subject(session, "network", classes, (1, 28, 28), images, "", to_device=place)
    asked = VerifyOptions(attacks=("fgsm", "pgd", "cw"), eps=EPS, fail_under=gate, n=60, **options)
    return verify(subject, asked, Silent()).report

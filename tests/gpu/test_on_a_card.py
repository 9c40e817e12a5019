"""What a card alone can tell: that it computes as the CPU does, as its card says, and gives its memory back."""

import json

import numpy as np
import pytest

from runtime.machine import nvml
from tests.gpu.conftest import MISSING, N, answer, edgeproof, python

pytestmark = pytest.mark.gpu
INCONCLUSIVE = 5
"""The exit code of a network that was never trained: a check may find something."""

OPEN = """
import json, sys
from functools import partial
from pathlib import Path
import numpy as np
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends.table import open_session
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import open_bundle

bundle, state, backend, provider, *rest = sys.argv[1:]
opened = open_bundle(Path(bundle))
images = evaluation_images(opened)
x, label = images.as_float(slice(None)), one_hot(images.labels, 10)
open_ = partial(open_session, opened, precision="fp32")
on_card = partial(open_, backend=backend, provider=provider, state=Path(state))
"""

APART = (
    OPEN
    + """
def answers(session):
    logits, _, gradient = session.loss_gradient(x[:64], cross_entropy(label[:64]))
    return session.card().tf32, [session.logits(x[:64]), logits, gradient]

with on_card(tf32=json.loads(rest[0])) as there, open_(backend="ort", provider="cpu") as here:
    (tf32, ours), (_, theirs) = answers(there), answers(here)
apart = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs)]
print(json.dumps({"tf32": tf32, "apart": max(apart)}))
"""
)

FREE = (
    OPEN
    + """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")

def asked(name, *arguments):
    assert getattr(cuda, name)(*arguments) == 0, name

context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
asked("cuInit", 0)
asked("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
asked("cuCtxSetCurrent", context)

def free_bytes():
    asked("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value
"""
)

ROUNDS = (
    FREE
    + """
left = []
for _ in range(5):
    with on_card() as session:
        session.logits(x)
        session.loss_gradient(x, cross_entropy(label))
    left.append(free_bytes())
print(json.dumps(left))
"""
)

SCARCE = (
    FREE
    + """
ballast, spare, command = ctypes.c_uint64(), int(rest[0]), rest[1:]
asked("cuMemAlloc_v2", ctypes.byref(ballast), ctypes.c_size_t(max(free_bytes() - spare, 1)))
del opened, images, x, label
from runtime.cli import main
main(command, prog_name="edgeproof")
"""
)

KEPT = (
    OPEN
    + """
with on_card() as session:
    session.logits(x[:1])
    session.loss_gradient(x[:1], cross_entropy(label[:1]))
    card = session.card()
print(json.dumps([card.backend, card.provider, card.device, card.rounds_apart, card.sha256, card.gradient_sha256]))
"""
)

LEFT_OPEN = (
    OPEN
    + """
session = on_card()
session.logits(x)
print("null")
"""
)


SIZES = (
    OPEN
    + """
from runtime.batches.fixed_sizes import FixedSizes
from runtime.session import LossSpec

def filled(session, n, size, rest):
    \"\"\"Answers to n images in a batch of a size whose other rows are others.\"\"\"
    rows = np.concatenate([np.arange(n), rest[: size - n]])
    return [array[:n] for array in (session.logits(x[rows]), *session.loss_gradient(x[rows], loss.rows(rows)))]

loss, apart = cross_entropy(label), 0
with on_card() as session:
    for n, size in ((2, 16), (20, 24), (100, 128), (500, 512)):
        for _ in range(3):  # plain, captured, replayed
            ours, theirs = filled(session, n, size, np.arange(512, 1024)), filled(session, n, size, np.arange(n))
            apart += sum(int((one != other).sum()) for one, other in zip(ours, theirs))
            first = FixedSizes(session, 512).logits(x[:n])
            apart += int((first != ours[0]).sum())
print(json.dumps(apart))
"""
)

TENSORS = (
    OPEN
    + """
from runtime.attacks import ATTACKS
from runtime.attacks.oracle import Oracle, Points, to_numpy
libraries = {"numpy": np.asarray}
try:
    import cupy
    libraries["cupy"] = cupy.asarray
except ImportError:
    pass
try:
    import torch
    libraries["torch"] = lambda array: torch.from_numpy(array).cuda()
except ImportError:
    pass
found = {}
with on_card() as session:
    for name, place in libraries.items():
        index = np.arange(256)
        points = Points(place(x[:256]), one_hot(place(images.labels[:256]), 10), images.labels[:256], index, index)
        attack = ATTACKS["pgd"]
        found[name] = attack.run(Oracle(session, 256), points, 1 / 255, 0).broken
print(json.dumps({name: int((broken != found["numpy"]).sum()) for name, broken in found.items()}))
"""
)


@pytest.fixture
def on_cuda(engine, placed):
    """The same of ONNX Runtime's CUDA provider alone."""
    if engine[0] != "ort-cuda":
        pytest.skip("of the CUDA provider")
    return placed


@pytest.fixture
def placed(engine, bundle, state):
    """What every piece of code above is given."""
    return bundle, state, *engine[1:]


def test_every_precision_answers_as_on_the_cpu_forward_and_backward_and_under_attack(engine, bundle, state, tmp_path):
    result = edgeproof("gpu-check", bundle, "--only", engine[0], "--state", state, "--out", tmp_path / "check")
    if result.returncode == MISSING:
        pytest.skip(result.stdout)
    (found,) = json.loads((tmp_path / "check" / "gpu-check.json").read_text())["results"]
    assert (result.returncode, found["state"]) == (0, "agrees"), found["message"]
    assert [each["precision"] for each in found["comparisons"]] == ["fp32", "fp16", "int8"]
    assert all(each["gradient_error"] and each["same_verdict"] for each in found["comparisons"])


def test_products_are_rounded_to_tf32_only_where_the_card_says_so(card, placed):
    exact, rounded = (answer(APART, *placed, json.dumps(tf32)) for tf32 in (False, True))
    assert (exact["tf32"], rounded["tf32"]) == (False, True)
    assert exact["apart"] < 1e-4
    if float(card.compute_capability) >= 8:
        assert rounded["apart"] > 5 * exact["apart"]


def test_a_session_names_its_provider_and_the_card_and_rounds_apart(card, placed):
    _, _, backend, provider = placed
    assert answer(KEPT, *placed)[:4] == [backend, provider, card.name, True]


def test_the_tensorrt_provider_keeps_the_engine_of_each_graph_apart(engine, placed, tmp_path):
    if engine[0] != "ort-tensorrt":
        pytest.skip("of ONNX Runtime's TensorRT provider alone")
    bundle, _, *rest = placed
    *_, forward, gradient = answer(KEPT, bundle, tmp_path, *rest)
    assert {path.parent.name for path in tmp_path.glob("engines/*/*/*.engine")} == {forward, gradient}


def test_a_session_that_is_closed_gives_its_memory_back(placed):
    left = answer(ROUNDS, *placed)
    assert min(left[1:]) >= left[0] - 2**24, left  # what a library keeps, it keeps from the first time on


def test_memory_that_runs_out_halves_the_batch_to_the_same_verdict(engine, placed, bundle, state, tmp_path):
    _, backend, provider = engine
    asked = ("verify", bundle, "--backend", backend, "--provider", provider, "--state", state, "--precision", "fp32")
    asked += ("--attacks", "fgsm", "--no-gate", "--batch", N)
    whole = edgeproof(*asked, "--out", tmp_path / "whole")
    assert whole.returncode in (0, INCONCLUSIVE), whole.stderr
    halved = 0
    for mebibytes in (4096, 2048, 1536, 1024, 768, 512):
        out = tmp_path / str(mebibytes)
        result = python(SCARCE, *placed, mebibytes * 2**20, *asked, "--out", out)
        if result.returncode == MISSING:
            assert "memory" in result.stderr
            break
        assert result.returncode == whole.returncode, result.stderr
        halved += "memory ran out" in result.stderr
        for name in ("clean_prediction", "broken_by", "adversarial_prediction"):
            first, second = (np.load(run / "evidence.npz")[name] for run in (tmp_path / "whole", out))
            assert (first == second).mean() > 0.99  # kernels differ by the size of a batch
    assert halved, "no size of memory was scarce: give the bundle more images"


def test_what_fills_a_batch_up_changes_no_bit_of_an_answer(on_cuda):
    assert answer(SIZES, *on_cuda) == 0


def test_tensors_on_the_card_are_attacked_as_arrays_of_the_host_are(on_cuda):
    apart = answer(TENSORS, *on_cuda)
    if len(apart) == 1:
        pytest.skip("neither CuPy nor PyTorch with CUDA is here")
    assert max(apart.values()) <= 2, apart  # of 256: a library's sums may round otherwise


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_run_that_is_repeated_leaves_the_same_evidence_and_replays_cuda_graphs(
    on_cuda, bundle, state, tmp_path, precision
):
    asked = ("verify", bundle, "--backend", "ort", "--provider", "cuda", "--state", state, "--precision", precision)
    asked += ("--attacks", "pgd,cw", "--no-gate", "--save-adversarial")
    evidence = []
    for name in ("first", "second"):
        result = edgeproof(*asked, "--out", tmp_path / name)
        assert result.returncode in (0, INCONCLUSIVE), result.stderr
        assert "without CUDA graphs" not in result.stderr
        evidence.append((tmp_path / name / "evidence.npz").read_bytes())
    assert evidence[0] == evidence[1]


def test_a_process_that_ends_with_a_session_open_ends_well(placed):
    assert answer(LEFT_OPEN, *placed) is None


def test_the_driver_and_nvml_name_the_same_card(card):
    gpu = nvml.first_gpu()
    if gpu is None:
        pytest.skip("NVML does not answer here")
    assert gpu.facts()["gpu"] == card.name

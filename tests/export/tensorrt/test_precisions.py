"""Every precision through builder and TrtSession, over the stand-in of TensorRT: float32 outside, its own inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto

from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from export.precision.calibrate import Calibration, in_int8
from export.precision.candidate import Candidate
from export.precision.mixed import keep
from export.precision.table import PRECISIONS
from export.tensorrt import build
from runtime.attacks.losses import cross_entropy, margin, one_hot
from runtime.backends.ort import OrtSession
from runtime.machine.driver import CudaDevice
from runtime.tensorrt.api import library_of
from runtime.tensorrt.session import Accelerator, EngineFactory, TrtSession
from runtime.tensorrt.store import EngineStore, Profile
from tests.export.classifiers import classifier
from tests.export.precision.test_precision import some_images
from tests.runtime.tensorrt import fake_tensorrt
from tests.runtime.tensorrt.fake_memory import FakeMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from onnx import ModelProto

    from export.graph.passes import Prepared

GPU = CudaDevice("Orin", "ab" * 16, "8.7", "12.6")
IMAGE, CLASSES = (2, 6, 6), 4
CALIBRATION = Calibration(some_images(40, *IMAGE, classes=CLASSES))
INSIDE = {"fp32": set(), "fp16": {TensorProto.FLOAT16}, "int8": {TensorProto.INT8}}
MIXED = "int8 with a layer in fp16"
INSIDE[MIXED] = INSIDE["fp16"] | INSIDE["int8"]


@pytest.fixture(scope="module")
def single() -> Prepared:
    random = np.random.default_rng(0)
    nodes = [
        "centred = Sub (input, mean)",
        "c = Conv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (centred, first_weight, bias)",
        "r = Relu (c)",
        "f = Flatten (r)",
        "logits = Gemm (f, head_weight, head_bias)",
    ]
    constants = {
        "mean": [[[[0.4]], [[0.5]]]],
        "first_weight": random.standard_normal((6, 2, 3, 3)),
        "bias": random.standard_normal(6) / 10,
        "head_weight": random.standard_normal((54, CLASSES)) / 4,
        "head_bias": random.standard_normal(CLASSES) / 10,
    }
    return prepare(classifier(nodes, image=IMAGE, classes=CLASSES, constants=constants, dtype=np.float32))


@pytest.fixture(params=INSIDE)
def graphs(request: pytest.FixtureRequest, single: Prepared) -> tuple[ModelProto, ModelProto]:
    if request.param == MIXED:
        forward = keep(in_int8(single, CALIBRATION), single, ["head_weight"])
    else:
        forward = PRECISIONS[request.param].make(Candidate(single), CALIBRATION)[0].forward
    kinds = {info.type.tensor_type.elem_type for info in forward.model.graph.value_info}
    assert kinds & {TensorProto.FLOAT16, TensorProto.INT8} == INSIDE[request.param]
    return forward.model, gradient_graph(forward)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[TrtSession, FakeMemory]]]:
    monkeypatch.setattr(fake_tensorrt, "world", fake_tensorrt.World())
    monkeypatch.setattr("tests.runtime.tensorrt.fake_memory.world", fake_tensorrt.world)
    memory, sessions = FakeMemory(), []
    factory = EngineFactory(build, EngineStore(tmp_path / "engines", GPU.identity()), Profile(usual=8, most=8))

    def open_(forward: ModelProto, gradient: ModelProto) -> tuple[TrtSession, FakeMemory]:
        accelerator = Accelerator(GPU, library_of(fake_tensorrt), memory)
        sessions.append(
            TrtSession(to_bytes(forward), to_bytes(gradient), precision="any", factory=factory, accelerator=accelerator)
        )
        return sessions[-1], memory

    yield open_
    for session in sessions:
        session.close()


def test_the_answers_are_those_of_the_same_graphs_on_onnx_runtime(graphs: Any, opened: Any) -> None:
    session, _ = opened(*graphs)
    reference = OrtSession(to_bytes(graphs[0]), to_bytes(graphs[1]), precision="any", threads=1)
    images = some_images(20, *IMAGE, classes=CLASSES, start=1)
    x, label = images.as_float(slice(None)), one_hot(images.labels, CLASSES)
    np.testing.assert_allclose(session.logits(x), reference.logits(x), rtol=0, atol=1e-5)
    for loss in (cross_entropy(label), margin(label)):
        for mine, theirs in zip(session.loss_gradient(x, loss), reference.loss_gradient(x, loss), strict=True):
            assert (mine.shape, mine.dtype) == (theirs.shape, np.float32)
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    assert np.abs(session.loss_gradient(x, cross_entropy(label))[2]).max() > 0

"""The builder, driven by the real library where it runs without a GPU (TensorRT-RTX), and by its stand-in."""

import enum
import re
from dataclasses import replace

import pytest

from export.graph.passes import to_bytes
from export.tensorrt import build
from runtime.errors import EngineFault, GraphRefused, OutOfMemory
from runtime.files import sha256
from runtime.tensorrt.library import TENSORRT_RTX, library_of
from runtime.tensorrt.store import EngineKey, Profile
from tests.runtime.tensorrt import fake_tensorrt
from tests.tiny import FORWARD, GRADIENT, graph, linear_task

tensorrt_rtx = pytest.importorskip("tensorrt_rtx")

PROFILE = Profile(usual=16, most=64)


def key(data, **changes):
    return EngineKey(
        graph_sha256=sha256(data), tensorrt="10.3.0", cuda="12.6", gpu="Orin", compute_capability="8.7",
        profile=PROFILE, **changes,
    )  # fmt: skip


@pytest.fixture
def rtx():
    """Return TensorRT-RTX as the builder sees TensorRT."""
    return library_of(tensorrt_rtx, TENSORRT_RTX)


@pytest.mark.parametrize("which", ["forward", "gradient"])
def test_the_graphs_of_a_classifier_are_built(exported, rtx, which):
    data = to_bytes(exported.forward.model if which == "forward" else exported.gradient)
    built = build(rtx, data, key(data))
    assert len(built.engine) > 10_000
    assert built.timings == b""  # kernels are compiled where the engine is loaded
    again = build(rtx, data, key(data, tf32=True), b"of another edition")
    assert len(again.engine) > 10_000


@pytest.mark.parametrize("text", [FORWARD, GRADIENT])
def test_the_hand_written_graphs_are_built(rtx, text):
    weight, bias, *_ = linear_task()
    data = graph(text, weight, bias)
    assert build(rtx, data, key(data)).engine


class Recorder:
    """A library whose builder hands out its configuration, to be looked at afterwards."""

    def __init__(self, library):
        outer = self

        class Builder(library.module.Builder):
            def create_builder_config(self):
                outer.config = super().create_builder_config()
                return outer.config

            def create_network(self, flags):
                outer.network = super().create_network(flags)
                return outer.network

        class Module:
            def __getattr__(self, name):
                return Builder if name == "Builder" else getattr(library.module, name)

        self.library = replace(library, module=Module())


@pytest.mark.parametrize("tf32", [False, True])
def test_the_real_configuration_holds_what_the_key_says(rtx, tf32):
    weight, bias, *_ = linear_task()
    data, seen = graph(FORWARD, weight, bias), Recorder(rtx)
    build(seen.library, data, key(data, tf32=tf32))
    trt = tensorrt_rtx
    assert seen.config.get_flag(trt.BuilderFlag.TF32) is tf32
    assert seen.config.get_preview_feature(trt.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10)
    assert seen.config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 256 * 2**20
    assert seen.config.num_optimization_profiles == 1
    assert seen.network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def test_what_the_parser_says_is_in_the_error(rtx):
    with pytest.raises(GraphRefused, match="Failed to parse the ONNX model") as caught:
        build(rtx, b"no graph", key(b"no graph"))
    assert caught.value.exit_code == 3


def test_an_operator_that_tensorrt_lacks_is_named(rtx):
    import onnx.parser

    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        odd (float[B, 4, 4] input) => (float[B] logits) { logits = Det(input) }
    """)
    with pytest.raises(GraphRefused, match=r"false at Det .*checkDet"):
        build(rtx, model.SerializeToString(), key(b""))


def test_an_open_shape_beside_the_batch_is_refused(rtx):
    weight, bias, *_ = linear_task()
    data = graph(FORWARD.replace("[B, 1, 4, 4]", "[B, 1, H, W]"), weight, bias)
    with pytest.raises(GraphRefused, match=r"input input has shape \[-1, 1, -1, -1\]"):
        build(rtx, data, key(data))


def test_what_the_real_builder_says_is_in_the_error(rtx):
    """A profile that no batch fits is refused by TensorRT itself."""
    weight, bias, *_ = linear_task()
    data = graph(FORWARD, weight, bias)
    bad = key(data).model_copy(update={"profile": Profile.model_construct(least=8, usual=4, most=2)})
    with pytest.raises((EngineFault, GraphRefused), match="TensorRT"):
        build(rtx, data, bad)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(fake_tensorrt, "world", fake_tensorrt.World())
    return library_of(fake_tensorrt)


@pytest.fixture
def tiny():
    weight, bias, *_ = linear_task()
    return graph(FORWARD, weight, bias)


@pytest.mark.parametrize("what", ["builder", "build", "profile"])
def test_every_failure_carries_tensorrts_last_words(fake, tiny, what):
    fake_tensorrt.world.broken[what] = "Error Code 10: Internal Error"
    with pytest.raises(EngineFault, match="Error Code 10: Internal Error") as caught:
        build(fake, tiny, key(tiny))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("what", ["builder", "build", "profile"])
@pytest.mark.parametrize(
    "words",
    [
        "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (Requested size was 4 bytes.)",
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "Requested amount of GPU memory (4 bytes) could not be allocated.",
    ],
)
def test_memory_that_runs_out_is_told_from_other_failures(fake, tiny, what, words):
    fake_tensorrt.world.broken[what] = words
    with pytest.raises(OutOfMemory, match=re.escape(words)) as caught:
        build(fake, tiny, key(tiny))
    assert caught.value.exit_code == 4


def test_a_tensorrt_that_cannot_resize_what_it_works_in_is_not_asked_to(fake, tiny, monkeypatch):
    monkeypatch.setattr(fake_tensorrt, "PreviewFeature", enum.IntEnum("PreviewFeature", {"PROFILE_SHARING_0806": 0}))
    assert build(fake, tiny, key(tiny)).engine


def test_words_of_an_earlier_failure_are_forgotten(fake, tiny):
    fake_tensorrt.world.broken["build"] = "first"
    with pytest.raises(EngineFault, match="first"):
        build(fake, tiny, key(tiny))
    fake_tensorrt.world.broken["build"] = "second"
    with pytest.raises(EngineFault) as caught:
        build(fake, tiny, key(tiny))
    assert "first" not in caught.value.message


@pytest.mark.parametrize("unfit", [b"garbage", b"TIMINGS of other GPU"])
def test_timings_that_tensorrt_refuses_are_left_aside_and_it_is_said(fake, tiny, unfit, capsys):
    build(fake, tiny, key(tiny), b"TIMINGS 1")
    assert capsys.readouterr().err == ""
    assert build(fake, tiny, key(tiny), unfit).engine
    assert "cannot use the timings" in capsys.readouterr().err

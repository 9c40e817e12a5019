"""TensorRT-RTX behind `--backend tensorrt`: found where TensorRT is not, told apart from it, and for its GPUs alone.

The session runs over the strict stand-in of RTX; the real library, where it is installed, says which GPUs it serves.
"""

import json

import numpy as np
import pytest

from export.tensorrt import build
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends.ort import OrtSession
from runtime.machine.card import software
from runtime.machine.driver import CudaDevice
from runtime.tensorrt.library import TENSORRT_RTX, library_of
from runtime.tensorrt.session import Accelerator, EngineFactory, TrtSession
from runtime.tensorrt.store import EngineStore, Profile
from runtime.verdict.subject import LIBRARIES
from tests.runtime.tensorrt import fake_tensorrt, fake_tensorrt_rtx
from tests.runtime.tensorrt.driver import make_libraries
from tests.runtime.tensorrt.fake_memory import FakeMemory
from tests.runtime.tensorrt.test_missing import refused
from tests.runtime.tensorrt.test_whole_way import check_the_whole_way, verify

GPU = CudaDevice("RTX 4090", "ab" * 16, "8.9", "13.0")
RTX = library_of(fake_tensorrt_rtx, TENSORRT_RTX)


@pytest.fixture
def opened(monkeypatch, tmp_path, files):
    """Return a function that opens the tiny bundle on a library; all sessions have one directory of engines."""
    monkeypatch.setattr(fake_tensorrt, "world", fake_tensorrt.World())
    monkeypatch.setattr("tests.runtime.tensorrt.fake_memory.world", fake_tensorrt.world)
    factory = EngineFactory(build, EngineStore(tmp_path / "engines", GPU.identity()), Profile(usual=8, most=8))
    sessions = []

    def open_(library=RTX):
        accelerator = Accelerator(GPU, library, FakeMemory())
        graphs = files["model.fp32.onnx"], files["model.fp32.grad.onnx"]
        sessions.append(TrtSession(*graphs, precision="fp32", factory=factory, accelerator=accelerator))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()


def test_a_batch_is_answered_the_same_however_often_it_is_asked(opened, files, task):
    session = opened()
    reference = OrtSession(files["model.fp32.onnx"], files["model.fp32.grad.onnx"], precision="fp32", threads=1)
    images, loss = task[2][:20], cross_entropy(one_hot(task[3][:20], 3))
    logits, gradient = session.logits(images), session.loss_gradient(images, loss)[2]
    np.testing.assert_allclose(logits, reference.logits(images), atol=1e-6)
    np.testing.assert_allclose(gradient, reference.loss_gradient(images, loss)[2], atol=1e-6)
    for _ in range(3):
        np.testing.assert_array_equal(session.logits(images), logits)
        np.testing.assert_array_equal(session.loss_gradient(images, loss)[2], gradient)


def test_everything_is_let_go(opened, task):
    session = opened()
    session.logits(task[2])
    assert fake_tensorrt.world.alive["IExecutionContext"] == 2
    session.close()
    assert not any(fake_tensorrt.world.alive.values())


def test_the_card_names_the_library(opened):
    cards = [opened(library).card() for library in (RTX, library_of(fake_tensorrt))]
    assert [card.provider for card in cards] == ["tensorrt-rtx", "tensorrt"]
    assert {card.backend for card in cards} == {"tensorrt"}


def test_engines_of_the_two_libraries_are_kept_apart(opened, tmp_path, capsys):
    for library in (RTX, library_of(fake_tensorrt)) * 2:
        opened(library).close()
    assert fake_tensorrt.world.builds == 4
    keys = [json.loads(path.read_text())["key"]["tensorrt"] for path in (tmp_path / "engines").glob("*.json")]
    assert sorted(keys) == ["10.3.0", "10.3.0", "RTX 1.7.1.116", "RTX 1.7.1.116"]
    assert not list((tmp_path / "engines").glob("timings-*RTX*"))
    assert capsys.readouterr().err.count("building it") == 4


def test_a_graph_that_it_does_not_take_is_told_in_its_name(opened, monkeypatch):
    monkeypatch.setitem(fake_tensorrt.world.broken, "build", "Error Code 1: Myelin")
    with pytest.raises(Exception, match="TensorRT-RTX builds no engine: Error Code 1: Myelin"):
        opened()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return make_libraries(tmp_path_factory.mktemp("both"), "tensorrt", "tensorrt_rtx")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return make_libraries(tmp_path_factory.mktemp("alone"), "tensorrt_rtx")


@pytest.fixture
def card(driver):
    """The variables of a machine with a GPU that RTX serves."""
    pytest.importorskip("cuda.bindings")
    return {"LD_LIBRARY_PATH": str(driver), "FAKE_SM": "89"}


def test_a_verdict_is_the_one_on_onnx_runtime(tmp_path, card, alone):
    check_the_whole_way(tmp_path, provider="tensorrt-rtx", **card, PYTHONPATH=str(alone))
    packages = json.loads((tmp_path / "trt/report.json").read_text())["software"]
    assert packages == software((*LIBRARIES, "tensorrt", "tensorrt-rtx"))


def test_the_library_that_is_asked_for_runs_where_both_are_there(tmp_path, card, both):
    asked = ("--backend", "tensorrt", "--state", tmp_path / "state", "--n", "4")
    for name, options in {"tensorrt": (), "tensorrt-rtx": ("--provider", "tensorrt-rtx")}.items():
        result = verify(tmp_path / name, *asked, *options, **card, PYTHONPATH=str(both))
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("building it") == 2
        assert json.loads((tmp_path / name / "report.json").read_text())["artifact"]["provider"] == name


def test_tensorrt_that_is_asked_for_has_no_other_in_its_place(tmp_path, card, alone):
    asked = ("--backend", "tensorrt", "--provider", "tensorrt", "--state", tmp_path / "state")
    result = verify(tmp_path / "report", *asked, **card, PYTHONPATH=str(alone))
    refused(result, "TensorRT is not installed: No module named 'tensorrt'", "[rtx]")


@pytest.mark.parametrize(("sm", "serves"), [("87", False), ("90", False), ("75", False), ("120", True), ("121", True)])
def test_a_gpu_that_it_does_not_serve_is_told_so_before_anything_is_built(tmp_path, card, alone, sm, serves):
    asked = ("--backend", "tensorrt", "--state", tmp_path / "state", "--n", "4")
    result = verify(tmp_path / "report", *asked, **card | {"FAKE_SM": sm}, PYTHONPATH=str(alone))
    if serves:
        assert result.returncode == 0, result.stderr
        return
    words = f"does not serve Fake Orin, of compute capability {sm[:-1]}.{sm[-1]}: it serves 8.0, 8.6"
    refused(result, f"TensorRT-RTX 1.7.1.116 {words}")
    assert "--backend ort --provider cuda" in result.stderr
    assert not (tmp_path / "state").exists()


def test_the_real_library_is_found_and_says_which_gpus_it_serves(tmp_path, card):
    pytest.importorskip("tensorrt_rtx")
    asked = ("--backend", "tensorrt", "--state", tmp_path / "state")
    result = verify(tmp_path / "report", *asked, **card | {"FAKE_SM": "90"})
    refused(result, "TensorRT-RTX 1.", "does not serve Fake Orin, of compute capability 9.0", "8.6, 8.9, 12.0")
    assert not (tmp_path / "state").exists()


def test_tensorrt_that_is_there_but_broken_has_no_other_in_its_place(tmp_path, card, both):
    place = tmp_path / "modules"
    (place / "tensorrt").mkdir(parents=True)
    (place / "tensorrt/__init__.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    asked = ("--backend", "tensorrt", "--state", tmp_path / "state")
    result = verify(tmp_path / "report", *asked, **card, PYTHONPATH=f"{place}:{both}")
    refused(result, "TensorRT is not installed: libnvinfer.so.10")

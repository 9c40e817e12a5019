import sys
import threading
import time
import weakref

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.attacks.losses import cross_entropy, linear, margin, one_hot
from runtime.backends import loading
from runtime.backends import ort as module
from runtime.backends.ort import OrtSession
from runtime.errors import BadModel, EngineFault, MissingEnvironment, OutOfMemory
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.tiny import FORWARD, GRADIENT, graph


def ort(files, **changes):
    graphs = {"forward": files["model.fp32.onnx"], "gradient": files["model.fp32.grad.onnx"]} | changes
    return OrtSession(graphs["forward"], graphs["gradient"], precision="fp32", threads=1)


def test_logits_values_and_gradients_are_those_of_the_model(task, files):
    weight, bias, images, labels = task
    label = one_hot(labels, 3)
    session, fake = ort(files), LinearSession(weight, bias)
    np.testing.assert_allclose(session.logits(images), fake.logits(images), atol=1e-5)
    for loss in (cross_entropy(label), margin(label), linear(label, label[::-1] - label)):
        z, value, gradient = session.loss_gradient(images, loss)
        _, expected, slope = fake.loss_gradient(images, loss)
        np.testing.assert_allclose(z, fake.logits(images), atol=1e-5)
        np.testing.assert_allclose(gradient, slope, atol=1e-5)
        if not loss.cotangent.any():
            np.testing.assert_allclose(value, expected, atol=1e-5)


def test_a_session_that_is_closed_has_let_go_of_onnx_runtime_and_its_threads(task, files, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 3)
    loaded, load = [], module.load

    def watched(*given, **named):
        session, captures = load(*given, **named)
        loaded.append(weakref.ref(session))
        return session, captures

    monkeypatch.setattr(module, "load", watched)
    before = threading.active_count()
    with OrtSession(files["model.fp32.onnx"], files["model.fp32.grad.onnx"], precision="fp32") as session:
        session.logits(task[2])
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert [reference() for reference in loaded] == [None, None]
    session.close()
    with pytest.raises(EngineFault, match="this session is closed"):
        session.logits(task[2])


def test_a_command_closes_every_session_that_it_opens(bundle, tmp_path, monkeypatch):
    events = []
    for name in ("__init__", "close"):
        method = getattr(OrtSession, name)

        def told(self, *given, name=name, method=method, **named):
            events.append((name, id(self)))
            return method(self, *given, **named)

        monkeypatch.setattr(OrtSession, name, told)
    assert edgeproof("verify", bundle, "--out", tmp_path / "run", "--attacks", "fgsm").exit_code == 0
    assert edgeproof("bench", bundle, "--batch", 1, "--seconds", 0.01, "--idle", 0).exit_code == 0
    opened, closed = ([which for name, which in events if name == kind] for kind in ("__init__", "close"))
    assert len(opened) == 3  # verify opens the artifact as it is written too
    assert sorted(opened) == sorted(closed)


def test_pieces_run_side_by_side_answer_what_the_whole_batch_does_to_the_bit(task, files, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 3)
    monkeypatch.setattr(module, "PIECE", 4)
    pieces = OrtSession(files["model.fp32.onnx"], files["model.fp32.grad.onnx"], precision="fp32")
    for n in (0, 1, 2, 13, 60):
        images, loss = task[2][:n], cross_entropy(one_hot(task[3][:n], 3))
        assert pieces.logits(images).tobytes() == ort(files).logits(images).tobytes()
        for ours, whole in zip(pieces.loss_gradient(images, loss), ort(files).loss_gradient(images, loss), strict=True):
            assert ours.tobytes() == whole.tobytes()


def test_no_piece_still_runs_once_another_ran_out_of_memory(task, files, monkeypatch):
    """It would hold the memory of the smaller batch that is asked for next."""
    monkeypatch.setattr(module, "cores", lambda: 2)
    session = OrtSession(files["model.fp32.onnx"], None, precision="fp32")
    begun, failed, ended = (threading.Event() for _ in range(3))

    class Starved:
        def run(self, outputs, feeds, options):
            if np.array_equal(feeds["input"], task[2][:30]):
                begun.wait()
                failed.set()
                raise MemoryError
            begun.set()
            failed.wait()
            time.sleep(0.1)
            ended.set()

        def get_providers(self):
            return ["CPUExecutionProvider"]

    session._forward._session = Starved()
    monkeypatch.setattr(module, "PIECE", 30)
    with pytest.raises(OutOfMemory):
        session.logits(task[2])
    assert ended.is_set()


def test_what_was_not_begun_is_left_once_a_piece_failed(task, files, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(module, "PIECE", 4)
    session, begun = OrtSession(files["model.fp32.onnx"], None, precision="fp32"), []

    class Failing:
        def run(self, outputs, feeds, options):
            begun.append(len(feeds["input"]))
            time.sleep(0.05)
            raise ValueError("no")

    session._forward._session = Failing()
    with pytest.raises(BadModel, match="no"):
        session.logits(task[2])
    assert len(begun) <= 6  # of sixteen


def test_an_arena_that_another_user_shares_already_is_taken(task, files, monkeypatch):
    def registered(*_):
        raise RuntimeError("An allocator for this device has already been registered for sharing.")

    loading.share_arena.cache_clear()
    monkeypatch.setattr(onnxruntime, "create_and_register_allocator", registered)
    assert ort(files).logits(task[2]).shape == (60, 3)


@given(st.integers(1, 300), st.integers(1, 9))
def test_a_batch_is_cut_into_as_many_small_equal_pieces_as_keep_every_worker_busy(n, workers):
    pieces = module.cut(n, workers)
    sizes = [piece.stop - piece.start for piece in pieces]
    assert [row for piece in pieces for row in range(n)[piece]] == list(range(n))
    assert sizes[0] == max(sizes)
    if workers > 1:
        assert max(sizes) <= module.PIECE
        rounds = -(-n // (module.PIECE * workers))
        assert max(sizes) == -(-n // (rounds * workers))
    else:
        assert len(pieces) == 1


def test_the_card_says_what_runs_where(files):
    card = ort(files).card()
    assert (card.precision, card.backend, card.provider, card.engine_sha256) == ("fp32", "ort", "cpu", None)
    assert len(card.sha256) == 64


@pytest.mark.parametrize("which", ["forward", "gradient"])
def test_a_truncated_graph_is_refused_without_a_word_on_the_terminal(files, which, capfd):
    name = {"forward": "model.fp32.onnx", "gradient": "model.fp32.grad.onnx"}[which]
    with pytest.raises(BadModel, match=f"{which} graph cannot be loaded"):
        ort(files, **{which: files[name][:-40]})
    assert capfd.readouterr() == ("", "")


def test_a_graph_with_other_names_is_refused(task, files):
    weight, bias, *_ = task
    model = graph(FORWARD.replace("logits", "scores"), weight, bias)
    with pytest.raises(BadModel, match="the forward graph has no logits"):
        ort(files, forward=model)
    with pytest.raises(BadModel, match="the gradient graph has no"):
        ort(files, gradient=files["model.fp32.onnx"])


def test_images_of_another_shape_are_refused(files):
    with pytest.raises(BadModel, match="the forward graph failed") as caught:
        ort(files).logits(np.zeros((2, 1, 5, 5), np.float32))
    assert "[2, 1, 5, 5]" in caught.value.hint


def test_without_a_gradient_graph_only_logits_are_answered(task, files):
    session = ort(files, gradient=None)
    session.logits(task[2])
    with pytest.raises(BadModel, match="no gradient graph"):
        session.loss_gradient(task[2], cross_entropy(one_hot(task[3], 3)))


def test_onnx_itself_accepts_the_hand_written_gradient(files):
    onnx.checker.check_model(onnx.load_model_from_string(files["model.fp32.grad.onnx"]))
    assert "target" not in GRADIENT


def test_without_onnx_runtime_the_environment_is_to_blame(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingEnvironment, match="ONNX Runtime is missing"):
        ort(files)


def test_a_graph_whose_fault_is_no_text_is_refused_without_a_word_on_the_terminal(files, capfd):
    """ONNX Runtime's message quotes the name, Python cannot decode it, and the package would print that and retry."""
    with pytest.raises(BadModel, match="forward graph cannot be loaded"):
        ort(files, forward=files["model.fp32.onnx"].replace(b"flat", b"fla\xff", 1))
    assert capfd.readouterr() == ("", "")


def test_a_graph_in_onnxruntimes_own_format_is_refused(files):
    """It is no protocol buffer, so that no search of ours would see what it refers to."""
    with pytest.raises(BadModel, match="forward graph cannot be loaded"):
        ort(files, forward=b"\x20\x00\x00\x00ORTM" + bytes(100))

"""Batches of few sizes: what fills them up changes no answer, and is answered to nobody."""

import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends.ort import OrtSession
from runtime.batches.fixed_sizes import LEAST, FixedSizes, filled, fixed_size
from tests.fakes import LinearSession
from tests.tiny import bundle_files, linear_task

TASK = linear_task()
FILES = bundle_files(TASK)


class Strict(LinearSession):
    """Answers NaN to every row that is in its batch already."""

    def _logits(self, x):
        copies = np.ones(len(x), bool)
        copies[np.unique(x, axis=0, return_index=True)[1]] = False
        return np.where(copies[:, None], np.float32(np.nan), super()._logits(x))


@given(st.integers(1, 5000))
def test_a_batch_is_filled_up_by_less_than_half_and_sizes_are_few(n):
    size = fixed_size(n)
    assert size >= n
    assert size == LEAST or 2 * size < 3 * n
    assert fixed_size(size) == size


def test_rows_are_filled_up_by_copies_of_them_and_nothing_is_copied_where_none_is_missing():
    x = np.arange(6.0).reshape(3, 2)
    assert filled(x, 5).tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert filled(x, 3) is x


def test_a_single_image_is_asked_by_itself_and_up_to_512_there_are_eleven_sizes_more():
    sizes = sorted({fixed_size(n) for n in range(1, 513)})
    assert sizes == [1, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]


SESSIONS = {
    "linear": lambda: LinearSession(*TASK[:2]),
    "onnx": lambda: OrtSession(FILES["model.fp32.onnx"], FILES["model.fp32.grad.onnx"], precision="fp32", threads=1),
}


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
@settings(deadline=None)
@given(n=st.integers(1, 60), most=st.integers(1, 100))
def test_what_fills_a_batch_up_changes_no_bit_of_what_is_answered(session, n, most):
    images, loss = TASK[2][:n], cross_entropy(one_hot(TASK[3][:n], 3))
    with session() as plain:
        fixed = FixedSizes(plain, most)
        assert fixed.logits(images).tobytes() == plain.logits(images).tobytes()
        for ours, theirs in zip(fixed.loss_gradient(images, loss), plain.loss_gradient(images, loss), strict=True):
            assert (ours.shape, ours.tobytes()) == (theirs.shape, theirs.tobytes())


@given(n=st.integers(1, 60), most=st.integers(1, 100))
def test_no_answer_to_a_copy_is_seen_and_no_batch_is_larger_than_asked_for(n, most):
    session = Strict(*TASK[:2])
    fixed, loss = FixedSizes(session, most), cross_entropy(one_hot(TASK[3][:n], 3))
    for array in (fixed.logits(TASK[2][:n]), *fixed.loss_gradient(TASK[2][:n], loss)):
        assert np.isfinite(array).all()
    assert session.calls == [max(n, min(fixed_size(n), most))]


def test_the_copies_do_reach_the_session():
    """Else the test above could not fail."""
    with pytest.raises(AssertionError):
        assert np.isfinite(Strict(*TASK[:2]).logits(np.concatenate([TASK[2][:1]] * 2))).all()


def test_images_of_another_library_stay_there():
    torch = pytest.importorskip("torch")
    session = LinearSession(*map(torch.from_numpy, TASK[:2]))
    images, label = torch.from_numpy(TASK[2][:5]), one_hot(torch.from_numpy(TASK[3][:5]), 3)
    answers = FixedSizes(session, 64).loss_gradient(images, cross_entropy(label))
    for ours, theirs in zip(answers, session.loss_gradient(images, cross_entropy(label)), strict=True):
        assert array_namespace(ours) is array_namespace(images)
        assert torch.equal(ours, theirs)


def test_it_closes_the_session_behind_and_shows_its_card():
    closed = []
    session = LinearSession(*TASK[:2])
    session.close = lambda: closed.append(True)
    with FixedSizes(session, 8) as fixed:
        assert fixed.card() == session.card()
    assert closed == [True]

"""Functions over buffers that keep their place; a card's own replay of them is tested in tests/gpu."""

import pytest
import torch

from pipeline.models.captured import Captured, Replays, alike, mostly_alike, uncaptured
from runtime.errors import BadModel


def squares(x):
    return x.square(), x.sum(dim=1)


class Counting:
    """The squares, and the sizes that they were asked in."""

    def __init__(self):
        self.sizes = []

    def __call__(self, x):
        self.sizes.append(len(x))
        return squares(x)


def recorder():
    return uncaptured


def same(ours, theirs):
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_captured_function_answers_as_it_does_itself_and_an_answer_stays_what_it_is():
    first, second = torch.rand(4, 3), torch.rand(4, 3)
    captured = Captured(squares, (torch.rand(4, 3),), uncaptured)
    answer = captured(first)
    captured(second)
    assert same(answer, squares(first))
    assert same(captured(second), squares(second))


def test_a_replay_that_keeps_what_it_was_recorded_with_is_found(said):
    def stuck(work):
        return work(), lambda: None

    replays = Replays(lambda: stuck)
    for _ in range(4):
        x = torch.rand(4, 3)
        assert same(replays.ask(squares, x), squares(x))
    assert "gives other answers" in said.text


def test_inputs_that_change_afterwards_change_no_buffer():
    given = torch.rand(4, 3)
    captured = Captured(squares, (given,), uncaptured)
    kept = given.clone()
    given.zero_()
    assert same(captured(kept), squares(kept))


def test_a_size_is_captured_when_it_is_asked_for_again_and_each_function_by_itself():
    recorded = []

    def recording(work):
        recorded.append(work)
        return uncaptured(work)

    replays, first, second = Replays(lambda: recording), Counting(), Counting()
    for function, expected in ((first, 0), (second, 0), (first, 1), (second, 2), (first, 2), (second, 2)):
        replays.ask(function, torch.rand(20, 3))
        assert len(recorded) == expected
    replays.clear()
    replays.ask(first, torch.rand(20, 3))
    assert len(recorded) == 2


def test_images_of_another_size_or_type_are_another_capture():
    replays = Replays(recorder)
    asked = [torch.rand(20, 3), torch.rand(20, 1), torch.rand(20, 3, dtype=torch.float64)]
    for x in 3 * asked:
        answer = replays.ask(squares, x)
        assert same(answer, squares(x))
        assert answer[0].dtype == x.dtype
    assert len(replays._captured) == 3


def test_a_capture_that_fails_is_said_once_and_tried_no_more(said):
    tried = []

    def failing(work):
        tried.append(work)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    counting, replays = Counting(), Replays(lambda: failing)
    for _ in range(4):
        x = torch.rand(17, 3)
        assert same(replays.ask(counting, x), squares(x))
    assert len(tried) == 1
    assert counting.sizes == [17, 17, 17, 17]
    (message,) = said.messages
    assert "not permitted when stream is capturing" in message
    assert "and more" not in message


def test_a_replay_that_answers_otherwise_is_never_used(said):
    calls = iter(range(100))

    def moody(x):
        return (x * next(calls),)

    replays = Replays(recorder)
    x = torch.ones(4, 1)
    assert [replays.ask(moody, x)[0][0].item() for _ in range(2)] == [0, 1]
    assert "gives other answers" in said.text
    ahead = next(calls)
    assert replays.ask(moody, x)[0][0].item() == ahead + 1


class Wearing:
    """Records what answers right `good` times, and from then on as it did last."""

    def __init__(self, good):
        self.good = good

    def __call__(self, work):
        results, again = uncaptured(work)
        left = iter(range(self.good))
        return results, lambda: again() if next(left, None) is not None else None


@pytest.mark.parametrize("good", [1, 2, 3])
def test_what_was_replayed_is_held_to_the_function_once_more_and_what_went_wrong_is_in_doubt(good):
    replays = Replays(lambda: Wearing(good))
    for _ in range(5):  # as it is, captured, replayed
        replays.ask(squares, torch.rand(20, 3))
    with pytest.raises(BadModel, match="the answers of a CUDA graph are in doubt: it gives other answers") as caught:
        replays.hold()
    assert "another --out" in caught.value.hint


def test_only_what_was_replayed_since_is_held():
    counting, replays = Counting(), Replays(recorder)
    for size in (20, 30, 20, 30, 20, 30):
        replays.ask(counting, torch.rand(size, 3))
    counting.sizes.clear()
    replays.hold()
    assert sorted(counting.sizes) == [20] * 2 + [30] * 2  # the stand-in's replay calls the function too
    replays.ask(counting, torch.rand(20, 3))
    counting.sizes.clear()
    replays.hold()
    assert counting.sizes == [20] * 2
    replays.hold()
    assert counting.sizes == [20] * 2


def test_what_cannot_be_held_is_in_doubt():
    full = []

    def function(x):
        if full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return squares(x)

    replays = Replays(recorder)
    for _ in range(3):
        replays.ask(function, torch.rand(20, 3))
    full.append(True)
    with pytest.raises(BadModel, match="in doubt: it cannot be held to its kernels once more, CUDA out of memory"):
        replays.hold()


def test_what_is_let_go_because_another_capture_failed_is_held_before():
    made = []

    def second_fails(work):
        made.append(work)
        if len(made) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        return Wearing(1)(work)

    replays = Replays(lambda: second_fails)
    for _ in range(3):
        replays.ask(squares, torch.rand(20, 3))
    replays.ask(squares, torch.rand(30, 3))
    with pytest.raises(BadModel, match="in doubt"):
        replays.ask(squares, torch.rand(30, 3))


def test_what_a_function_raises_is_raised():
    def full(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Replays(recorder).ask(full, torch.rand(3, 3))


def test_rounding_is_alike_and_a_part_in_a_hundred_or_no_number_is_not():
    x = torch.rand(5, 3) + 0.5
    assert alike((x,), (x * (1 + 1e-6),))
    assert not alike((x,), (x * 1.01,))
    assert not alike((x * torch.nan,), (x * torch.nan,))


@pytest.mark.parametrize(("rows", "spared"), [(1, 0), (15, 0), (16, 1), (40, 2)])
def test_later_one_row_in_sixteen_may_be_apart_and_no_more(rows, spared):
    theirs = (torch.rand(rows, 3, 2) + 0.5, torch.rand(rows) + 0.5)
    for wrong in range(spared + 2):
        for other in (2.0, torch.nan):
            ours = tuple(tensor.clone() for tensor in theirs)
            for tensor in ours:
                tensor[:wrong] *= other
            assert mostly_alike(ours, theirs) == (wrong <= spared)

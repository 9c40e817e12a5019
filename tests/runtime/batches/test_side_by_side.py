"""Jobs side by side: each is answered as if it were alone, and together they keep the batches full."""

import random
import threading
import time
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from runtime.attacks.losses import cross_entropy, one_hot
from runtime.batches.side_by_side import MOST, Asking, side_by_side
from runtime.errors import NonFinite, OutOfMemory
from tests.fakes import LinearSession
from tests.tiny import linear_task

WEIGHT, BIAS, IMAGES, LABELS = linear_task(n=600)


class Recorder(LinearSession):
    """Notes who asks, and of how many images, forward or backward."""

    def __init__(self):
        super().__init__(WEIGHT, BIAS)
        self.asked, self.threads = [], set()

    def logits(self, x):
        return self._noted("logits", x, super().logits(x))

    def loss_gradient(self, x, loss):
        return self._noted("gradient", x, super().loss_gradient(x, loss))

    def _noted(self, what, x, answer):
        self.asked.append((what, len(x)))
        self.threads.add(threading.get_ident())
        return answer


def walk(index, session, steps=6, slow=0.0):
    """Ask step by step about ever fewer images; return all answers."""
    found = []
    for _ in range(steps):
        if not len(index):
            break
        time.sleep(random.random() * slow)
        loss = cross_entropy(one_hot(LABELS[index], 3))
        found += [session.logits(IMAGES[index]), *session.loss_gradient(IMAGES[index], loss)]
        index = index[index % 7 != len(found) % 5]
    return found


def parts(size, n=600):
    return np.split(np.arange(n), range(size, n, size))


def jobs(size, **options):
    return [Asking(len(part), partial(walk, part, **options)) for part in parts(size)]


@pytest.mark.parametrize(("size", "rows"), [(64, 256), (7, 50), (100, 100), (600, 64), (50, 1000)])
def test_each_job_is_answered_to_the_bit_as_if_it_were_alone(size, rows):
    together = list(side_by_side(LinearSession(WEIGHT, BIAS), jobs(size), rows))
    for part, found in zip(parts(size), together, strict=True):
        alone = walk(part, LinearSession(WEIGHT, BIAS))
        assert [array.tobytes() for array in found] == [array.tobytes() for array in alone]


def test_only_the_thread_that_waits_for_the_results_asks_the_session():
    session = Recorder()
    list(side_by_side(session, jobs(64), 256))
    assert session.threads == {threading.get_ident()}


def test_batches_are_never_larger_than_asked_for_and_are_kept_full():
    session = Recorder()
    list(side_by_side(session, jobs(20, steps=20), 100))
    asked = [n for _, n in session.asked]
    assert max(asked) <= 100
    alone = Recorder()
    for part in parts(20):
        walk(part, alone, steps=20)
    assert sum(asked) == sum(n for _, n in alone.asked)
    assert len(asked) < 0.3 * len(alone.asked)


def test_what_is_asked_when_does_not_hang_on_the_clock():
    asked = []
    for slow in (0.0, 0.003, 0.003):
        session = Recorder()
        list(side_by_side(session, jobs(40, slow=slow), 128))
        asked.append(session.asked)
    assert asked[0] == asked[1] == asked[2]


def test_a_job_that_fails_fails_in_its_place_and_the_others_are_stopped():
    def fail(session):
        session.logits(IMAGES[:3])
        raise NonFinite("image 17 is none")

    before, found = threading.active_count(), []
    doing = jobs(100)
    doing[2] = Asking(100, fail)
    with pytest.raises(NonFinite, match="image 17"):
        found.extend(side_by_side(LinearSession(WEIGHT, BIAS), doing, 300))
    assert len(found) == 2
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [OutOfMemory("no"), KeyboardInterrupt()])
def test_a_session_that_fails_and_an_interrupt_end_every_job(error):
    class Full(LinearSession):
        def logits(self, x):
            raise error

    before = threading.active_count()
    with pytest.raises(type(error)):
        list(side_by_side(Full(WEIGHT, BIAS), jobs(64), 256))
    assert threading.active_count() == before


def test_who_stops_asking_for_results_stops_the_jobs():
    before = threading.active_count()
    with closing(side_by_side(LinearSession(WEIGHT, BIAS), jobs(30), 120)) as results:
        next(results)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_jobs_that_ask_nothing_end_too_and_no_job_is_no_result():
    nothing = [Asking(10, lambda session, number=number: number) for number in range(5)]
    assert list(side_by_side(LinearSession(WEIGHT, BIAS), nothing, 20)) == [0, 1, 2, 3, 4]
    assert list(side_by_side(LinearSession(WEIGHT, BIAS), [], 20)) == []


def test_a_job_that_asks_about_no_image_is_answered_too():
    none = Asking(1, lambda session: session.logits(IMAGES[:0]).shape)
    results = side_by_side(LinearSession(WEIGHT, BIAS), [none, *jobs(200)], 256)
    assert next(results) == (0, 3)
    assert len(list(results)) == 3


def test_threads_are_bounded_however_small_the_jobs_are():
    most = 0

    def count(session):
        nonlocal most
        session.logits(IMAGES[:1])
        most = max(most, threading.active_count() - before)

    before = threading.active_count()
    list(side_by_side(LinearSession(WEIGHT, BIAS), [Asking(1, count)] * 100, 10_000))
    assert 1 < most <= 2 * MOST

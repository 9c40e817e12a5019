"""`--batch auto`: what a GPU is asked at once follows from its memory and the images alone; a CPU as ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.backends import batching
from runtime.backends.batching import on_gpu
from runtime.session import Batching
from tests.fakes import LinearSession

GIB = 2**30


@pytest.mark.parametrize(
    ("memory", "image", "largest"),
    [
        (141 * GIB, (3, 32, 32), 512),  # an H200: no more than is worth it
        (16 * GIB, (3, 32, 32), 128),
        (8 * GIB, (1, 28, 28), 256),
        (8 * GIB, (3, 224, 224), 64),  # never fewer than a CPU is asked: what does not fit is halved
        (0, (3, 32, 32), 64),
    ],
)
def test_a_larger_gpu_is_asked_for_more_images_at_once(memory, image, largest):
    assert on_gpu(memory, image) == Batching(largest, full=True)


@given(st.integers(0, 200 * GIB), st.integers(1, 2**24))
def test_a_batch_of_a_gpu_fits_half_its_memory_or_is_a_cpus(memory, values):
    largest = on_gpu(memory, (values,)).largest
    assert largest & (largest - 1) == 0
    assert 64 <= largest <= batching.LARGEST
    assert largest == 64 or 2 * largest * values * batching.ACTIVATIONS * batching.BYTES <= memory


def test_a_session_that_says_nothing_is_asked_as_a_cpu():
    assert LinearSession(np.zeros((3, 4)), np.zeros(3)).batching((1, 2, 2)) == Batching(64, full=False)

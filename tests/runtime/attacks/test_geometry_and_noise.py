import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.attacks.geometry import linf, project
from runtime.attacks.noise import Noise

pixels = hnp.arrays(np.float32, (3, 1, 2, 2), elements=st.floats(0, 1, width=32))
anything = hnp.arrays(np.float32, (3, 1, 2, 2), elements=st.floats(-3, 3, width=32))
radius = st.floats(0, 1)


@given(anything, pixels, radius)
def test_projection_lands_in_the_ball_and_the_box_and_is_idempotent(x, centre, eps):
    once = project(x, centre, eps)
    assert once.dtype == np.float32
    assert linf(once, centre).max() <= eps + 1e-6
    assert once.min() >= 0
    assert once.max() <= 1
    np.testing.assert_array_equal(project(once, centre, eps), once)


@given(pixels, radius)
def test_projection_leaves_the_centre_where_it_is(centre, eps):
    np.testing.assert_array_equal(project(centre, centre, eps), centre)


@given(anything, pixels, radius)
def test_no_point_of_the_ball_and_the_box_is_nearer_than_the_projection(x, centre, eps):
    nearest = np.clip(x.astype(np.float64), np.maximum(centre - eps, 0), np.minimum(centre + eps, 1))
    np.testing.assert_allclose(project(x, centre, eps), nearest, atol=2e-7)


def test_distance_is_computed_in_float64():
    assert linf(np.float32([[0.1]]), np.float32([[0.0]])).dtype == np.float64
    assert linf(np.float32([[1.0]]), np.float32([[1e-8]]))[0] < 1


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=8), st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_noise_belongs_to_the_image_whatever_the_batch(index, seed, restart):
    noise = Noise(seed, "pgd")
    together = noise.uniform(index, (1, 3, 3), restart)
    alone = np.concatenate([noise.uniform([image], (1, 3, 3), restart) for image in index])
    np.testing.assert_array_equal(together, alone)
    assert together.dtype == np.float32


def test_seed_attack_restart_and_image_each_change_the_noise():
    base = Noise(0, "pgd").uniform([1], (50,))
    others = [
        Noise(1, "pgd").uniform([1], (50,)),
        Noise(0, "cw").uniform([1], (50,)),
        Noise(0, "pgd").uniform([1], (50,), restart=1),
        Noise(0, "pgd").uniform([2], (50,)),
    ]
    assert all(np.mean(base == other) < 0.1 for other in others)


def test_noise_is_uniform_from_minus_one_to_one():
    u = Noise(3, "pgd").uniform(range(20), (1000,)).ravel().astype(np.float64)
    assert -1 <= u.min() < -0.999
    assert 0.999 < u.max() <= 1
    histogram = np.histogram(u, 10, (-1, 1))[0]
    assert (abs(histogram - 2000) < 5 * np.sqrt(2000)).all()


def test_bits_belong_to_the_image_and_begin_alike_whatever_their_number():
    noise = Noise(1, "square")
    many, few = noise.bits([3, 8], 100, restart=2), noise.bits([8], 10, restart=2)
    assert many.dtype == np.uint64
    np.testing.assert_array_equal(many[1, :10], few[0])
    assert not np.isin(many[0], many[1]).any()


def test_noise_stays_what_it_was():
    """A change here changes every verdict ever given: bump the report's schema with it."""
    np.testing.assert_array_equal(Noise(7, "pgd").uniform([5], (3,)), FROZEN)


FROZEN = np.float32([[0.23168456554412842, 0.38258659839630127, 0.23093843460083008]])

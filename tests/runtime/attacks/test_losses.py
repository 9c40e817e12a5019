import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.attacks.losses import cross_entropy, dlr, linear, margin, one_hot, targeted_dlr, value_and_cotangent

Z = np.float32([[2.0, -1.0, 0.5, 1.2, 0.1], [0.3, 0.9, -2.0, 0.2, 0.7], [-1.0, 4.0, 3.0, 2.5, 0.0]])
LABEL = one_hot(np.array([0, 2, 2]), 5)
TARGET = one_hot(np.array([3, 1, 0]), 5)
LOSSES = {
    "cross-entropy": cross_entropy(LABEL),
    "margin": margin(LABEL),
    "dlr": dlr(LABEL),
    "targeted dlr": targeted_dlr(LABEL, TARGET),
    "linear": linear(LABEL, TARGET - LABEL),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def by_hand(name, z, y, t):
    ranked = np.sort(z)[::-1]
    others = max(z[j] for j in range(5) if j != y)
    return {
        "cross-entropy": np.log(np.exp(z).sum()) - z[y],
        "margin": others - z[y],
        "dlr": -(z[y] - others) / (ranked[0] - ranked[2] + 1e-12),
        "targeted dlr": -(z[y] - z[t]) / (ranked[0] - (ranked[2] + ranked[3]) / 2 + 1e-12),
        "linear": z[t] - z[y],
    }[name]


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_formulas(name):
    value, _ = value_and_cotangent(Z, LOSSES[name])
    expected = [by_hand(name, z.astype(float), y, t) for z, y, t in zip(Z, (0, 2, 2), (3, 1, 0), strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert value.dtype == np.float32


@pytest.mark.parametrize("name", LOSSES)
def test_cotangents_are_the_derivatives_of_the_values(name):
    _, cotangent = value_and_cotangent(Z, LOSSES[name])
    step = 1e-6
    for row, (y, t) in enumerate(zip((0, 2, 2), (3, 1, 0), strict=True)):
        for column in range(5):
            up, down = Z[row].astype(float), Z[row].astype(float)
            up[column] += step
            down[column] -= step
            slope = (by_hand(name, up, y, t) - by_hand(name, down, y, t)) / (2 * step)
            assert cotangent[row, column] == pytest.approx(slope, abs=1e-5)


@every_loss
def test_the_standard_namespace_gives_the_same(loss):
    strict = type(loss)(*(array_api_strict.asarray(array) for array in vars(loss).values()))
    for plain, other in zip(
        value_and_cotangent(Z, loss), value_and_cotangent(array_api_strict.asarray(Z), strict), strict=True
    ):
        np.testing.assert_allclose(np.asarray(other), plain, rtol=1e-6)


@every_loss
def test_torch_gives_the_same(loss):
    torch = pytest.importorskip("torch")
    tensors = type(loss)(*(torch.from_numpy(np.array(array)) for array in vars(loss).values()))
    for plain, other in zip(
        value_and_cotangent(Z, loss), value_and_cotangent(torch.from_numpy(Z), tensors), strict=True
    ):
        np.testing.assert_allclose(other.numpy(), plain, rtol=1e-5, atol=1e-7)


def test_cross_entropy_keeps_its_gradient_on_confident_images():
    z = np.float32([[60.0, 0.0, 0.0]])
    value, cotangent = value_and_cotangent(z, cross_entropy(one_hot(np.array([0]), 3)))
    assert cotangent[0, 0] == pytest.approx(-2 * np.exp(-60), rel=1e-5)
    assert cotangent[0, 1] == pytest.approx(np.exp(-60), rel=1e-5)
    assert value[0] == pytest.approx(2 * np.exp(-60), rel=1e-5)


@given(hnp.arrays(np.float32, (2, 4), elements=st.floats(-80, 80, width=32)))
def test_every_value_and_cotangent_is_finite_and_sums_to_nothing(z):
    label, target = one_hot(np.array([0, 1]), 4), one_hot(np.array([2, 0]), 4)
    for loss in (cross_entropy(label), margin(label), dlr(label), targeted_dlr(label, target)):
        value, cotangent = value_and_cotangent(z, loss)
        assert np.isfinite(value).all()
        assert np.isfinite(cotangent).all()
        scale = np.maximum(np.abs(cotangent).max(axis=1), 1)
        assert (np.abs(cotangent.sum(axis=1)) <= 1e-5 * scale).all()


def test_ties_go_to_the_first_class():
    _, cotangent = value_and_cotangent(np.float32([[1, 1, 1, 0]]), margin(one_hot(np.array([0]), 4)))
    np.testing.assert_array_equal(cotangent, [[-1, 1, 0, 0]])


@pytest.mark.parametrize("classes", [2, 3])
def test_losses_that_few_classes_do_not_define_count_nothing(classes):
    z, label = Z[:, :classes], one_hot(np.array([0, 1, 0]), classes)
    value, cotangent = value_and_cotangent(z, targeted_dlr(label, label[::-1]))
    assert not value.any()
    assert not cotangent.any()


def test_rows_are_weighted_one_by_one():
    mixed = cross_entropy(LABEL)
    mixed.weights[1] = [0, 1, 0, 0]
    value, _ = value_and_cotangent(Z, mixed)
    first, second = (value_and_cotangent(Z, loss)[0] for loss in (cross_entropy(LABEL), margin(LABEL)))
    np.testing.assert_allclose(value, [first[0], second[1], first[2]])

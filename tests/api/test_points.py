"""Points of `edgeproof.attack` count: whole levels where bytes go in, found by a gradient that is true."""

import numpy as np
import pytest
import torch

import edgeproof as ep
from runtime.backends.ort import OrtSession
from runtime.errors import BadData, BadModel, UsageFault
from tests.export.adapt.test_bytes import BYTES, FORMS_OF_BYTES, STORED
from tests.export.plain import network
from tests.tiny import FORWARD, IN_BYTES, graph, linear_task

EPS = 4 / 255
OF_BYTES = FORMS_OF_BYTES["channels first"].SerializeToString()


@pytest.fixture
def labels():
    return network(torch.from_numpy(STORED)).argmax(1).numpy()


@pytest.fixture
def bundle(tmp_path, labels):
    """A bundle of a model of bytes; its own images are whole levels, others that it is asked for need not be."""
    from tests.command_line import edgeproof

    (tmp_path / "model.onnx").write_bytes(OF_BYTES)
    np.savez(tmp_path / "set.npz", x=BYTES, y=labels)
    made = ("--data", tmp_path / "set.npz", "--eps", "4/255", "--out", tmp_path / "bundle")
    assert edgeproof("pack", tmp_path / "model.onnx", *made).exit_code == 0
    return tmp_path / "bundle"


def test_points_of_a_model_of_bytes_are_whole_levels(bundle, labels):
    levels = 255 * ep.attack(bundle, BYTES, labels, eps=EPS)
    assert np.abs(levels - np.rint(levels)).max() < 1e-3
    assert np.abs(np.rint(levels) - BYTES).max() <= 4


def test_what_bytes_cannot_say_is_refused(bundle, labels):
    with pytest.raises(BadData, match="the model takes bytes"):
        ep.attack(bundle, STORED, labels, eps=EPS)
    with pytest.raises(UsageFault, match="whole number of 1/255") as caught:
        ep.attack(bundle, BYTES, labels, eps=4.5 / 255)
    assert caught.value.hint == "eps=4/255"


class TestOfALinearModel:
    weight, bias, x, y = linear_task()

    def test_a_gradient_that_went_wrong_on_the_device_is_no_point(self, monkeypatch):
        """What an engine says when it holds its CUDA graphs to runs without them."""

        def wrong(session):
            raise BadModel("the gradient graph answers otherwise when it is replayed")

        monkeypatch.setattr("runtime.backends.ort.OrtSession.confirm", wrong)
        with pytest.raises(BadModel, match="answers otherwise"):
            ep.attack(graph(FORWARD, self.weight, self.bias), self.x, self.y, attack="fgsm", eps=0.01)

    def test_a_gradient_of_another_sign_is_no_point(self, monkeypatch):
        lent = "runtime.backends.ort.OrtSession.loss_gradient"
        true = OrtSession.loss_gradient

        def turned(session, x, loss):
            z, value, gradient = true(session, x, loss)
            return z, value, -gradient

        monkeypatch.setattr(lent, turned)
        with pytest.raises(BadModel, match="fails to predict the artifact") as caught:
            ep.attack(graph(FORWARD, self.weight, self.bias), self.x, self.y, attack="pgd", eps=0.01)
        assert "square" in caught.value.hint

    def test_no_gradient_is_no_point(self, monkeypatch):
        true = OrtSession.loss_gradient

        def flat(session, x, loss):
            z, value, gradient = true(session, x, loss)
            return z, value, 0 * gradient

        monkeypatch.setattr("runtime.backends.ort.OrtSession.loss_gradient", flat)
        model = graph(FORWARD, self.weight, self.bias)
        with pytest.raises(BadModel, match="the attacks were blind"):
            ep.attack(model, self.x, self.y, attack="pgd", eps=0.01)
        assert ep.attack(model, self.x, self.y, attack="square", eps=0.01).shape == self.x.shape

    def test_a_model_of_steps_lends_its_slope_and_is_not_taken_for_a_lie(self):
        points = ep.attack(graph(IN_BYTES, self.weight, self.bias), self.x, self.y, attack="pgd", eps=0.03)
        assert np.abs(points - self.x).max() <= 0.03 + 1e-6

    def test_an_eps_of_nothing_leaves_the_images_as_they_are(self):
        model = graph(FORWARD, self.weight, self.bias)
        np.testing.assert_array_equal(ep.attack(model, self.x, self.y, attack="fgsm", eps=0.0), self.x)

"""A gradient is held to ONNX Runtime's before any attack follows it."""

import numpy as np
import pytest

from runtime.backends.ort import OrtSession
from runtime.backends.probe import noise, with_true_gradient, wrong_gradient
from runtime.errors import BadModel, NonFinite
from tests.tiny import FORWARD, GRADIENT, SHAPE, graph, linear_task

NEGATED = GRADIENT.replace(
    "  gradient = Reshape(flat_gradient", "  turned = Neg(flat_gradient)\n  gradient = Reshape(turned"
)


@pytest.fixture
def task():
    return linear_task()


def session(task, gradient=GRADIENT):
    graphs = graph(FORWARD, *task[:2]), gradient and graph(gradient, *task[:2])
    return OrtSession(*graphs, precision="fp32")


def test_the_gradient_of_the_same_graph_holds(task):
    assert wrong_gradient(session(task), session(task), SHAPE, stepped=False) is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("dlr = Div(dlr_above, spread_value)", "dlr = Mul(dlr_above, spread_value)", "gradient of DLR"),
        ("v_margin = Mul(w_margin, margin)", "v_margin = Mul(w_ce, margin)", "gradient of "),
        ("v = Add(v_named, cotangent)", "v = Sub(v_named, cotangent)", "gradient of a logit"),
        ("margin_value = ReduceSum(margin_terms, last)", "margin_value = ReduceMax(margin_terms, last)", "value of "),
    ],
)
def test_one_loss_that_is_differentiated_wrongly_is_enough(task, old, new, told):
    assert old in GRADIENT
    wrong = wrong_gradient(session(task, GRADIENT.replace(old, new)), session(task), SHAPE, stepped=False)
    assert told in wrong


def test_a_gradient_that_is_wrong_in_small_batches_alone_is_found(task):
    right = session(task)

    class Small:
        def loss_gradient(self, x, loss):
            z, value, gradient = right.loss_gradient(x, loss)
            return z, value, -gradient if len(x) == 2 else gradient

    assert "differs from ort:cpu's on 16 of 16" in wrong_gradient(Small(), right, SHAPE, stepped=False)


def test_nan_and_errors_are_no_gradient(task):
    right = session(task)

    class Failing:
        def loss_gradient(self, x, loss):
            raise NonFinite("it is NaN", hint="")

    class Nan:
        def loss_gradient(self, x, loss):
            z, value, gradient = right.loss_gradient(x, loss)
            return z, value, gradient * np.nan

    assert "it is NaN" in wrong_gradient(Failing(), right, SHAPE, stepped=False)
    assert "gradient" in wrong_gradient(Nan(), right, SHAPE, stepped=False)


def test_an_engine_keeps_its_gradient_graph_where_it_holds_and_goes_without_where_not(task):
    opened = []

    def opening(text, gradient):
        opened.append(session(task, text if gradient else None))
        return opened[-1]

    def reference():
        return session(task)

    for text, kept in ((GRADIENT, True), (NEGATED, False)):
        found = with_true_gradient(lambda gradient, text=text: opening(text, gradient), b"graph", reference, SHAPE)
        assert found.card().differentiable is kept
    assert len(opened) == 3
    assert (
        not with_true_gradient(lambda gradient: opening(GRADIENT, gradient), None, reference, SHAPE)
        .card()
        .differentiable
    )


def test_a_gradient_graph_that_does_not_compile_is_left_out_and_a_forward_graph_that_does_not_is_an_error(task):
    def refuses(gradient):
        if gradient:
            raise BadModel("no kernel", hint="")
        return session(task, None)

    def refuses_all(gradient):
        raise BadModel("no kernel", hint="")

    assert not with_true_gradient(refuses, b"graph", None, SHAPE).card().differentiable
    with pytest.raises(BadModel, match="no kernel"):
        with_true_gradient(refuses_all, b"graph", None, SHAPE)


def test_the_images_of_the_probe_are_the_same_every_time_and_in_range():
    for shape in ((1, 4, 4), (3, 7, 5)):
        x = noise(16, shape)
        assert x.shape == (16, *shape)
        assert x.dtype == np.float32
        assert x.tobytes() == noise(16, shape).tobytes()
        assert x.min() >= 0
        assert x.max() <= 1

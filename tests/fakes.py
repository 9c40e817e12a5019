"""A classifier whose robust accuracy is known in closed form, behind the Session protocol, for any array library."""

import numpy as np
from array_api_compat import array_namespace

from runtime.attacks.losses import value_and_cotangent
from runtime.records.report import Artifact
from runtime.session import GraphFacts, Session, SessionCard
from runtime.suite.plan import plan_suite
from tests.tiny import EPS

DIGEST = "0" * 64


def artifact(precision="fp32", facts=None):
    """What a report says was attacked; int8 is quantised, unless its facts say otherwise."""
    facts = facts or GraphFacts(quantised=precision == "int8")
    return Artifact(
        name="fake", sha256=DIGEST, engine_sha256=None, precision=precision, backend="fake", provider="fake",
        bundle_version=None, authenticated=False, facts=facts,
    )  # fmt: skip


class LinearSession(Session):
    """z = W x + b. weight [K, D] and bias [K] are float32 arrays of the library under test.

    Summed row by row: what it answers for an image does not depend on the others of the batch.
    """

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias
        self.calls = []

    def logits(self, x):
        self.calls.append(x.shape[0])
        return self._logits(x)

    def loss_gradient(self, x, loss):
        xp = array_namespace(x)
        z = self._logits(x)
        value, cotangent = value_and_cotangent(z, loss)
        return z, value, xp.reshape(xp.sum(cotangent[:, :, None] * self.weight[None, ...], axis=1), x.shape)

    def card(self):
        return SessionCard(DIGEST, "fp32", "fake", "fake", "fake")

    def _logits(self, x):
        xp = array_namespace(x)
        return xp.sum(xp.reshape(x, (x.shape[0], 1, -1)) * self.weight[None, ...], axis=2) + self.bias

    def margins(self, images, labels):
        """Return the least over t of (margin over t) / ||w_y - w_t||_1 in float64 [N]: the distance to the boundary.

        Holds where the ball lies inside the box.
        """
        weight, bias = np.asarray(self.weight, np.float64), np.asarray(self.bias, np.float64)
        x = np.asarray(images, np.float64).reshape(len(labels), -1)
        difference = weight[labels][:, None] - weight[None]
        gap = np.einsum("nd,nkd->nk", x, difference) + bias[labels][:, None] - bias[None]
        length = np.abs(difference).sum(axis=2)
        length[np.arange(len(labels)), labels] = np.nan
        return np.nanmin(gap / length, axis=1)


class LyingGradients(LinearSession):
    """Its gradient graph calls every point misclassified, the artifact does not agree."""

    def loss_gradient(self, x, loss):
        z, value, gradient = super().loss_gradient(x, loss)
        return -z, value, gradient


class FlatFor(LinearSession):
    """Its gradient is all zero for the images whose first pixel is marked."""

    def loss_gradient(self, x, loss):
        z, value, gradient = super().loss_gradient(x, loss)
        xp = array_namespace(x)
        marked = xp.abs(x[:, :1, :1, :1] - 0.125) < 2 * EPS
        return z, value, xp.where(marked, xp.zeros_like(gradient), gradient)


class OtherAlone(LinearSession):
    """It answers an image by itself otherwise than the same image in a batch."""

    def _logits(self, x):
        return super()._logits(x) * (0.5 if x.shape[0] == 1 else 1)


class OtherAloneBeside(OtherAlone):
    """The same beside a number that is added to every logit, which changes no answer and no attack."""

    def _logits(self, x):
        return super()._logits(x) + 1000


class OtherClassAlone(LinearSession):
    """It answers an image by itself with another class, beside a class that no image is of, far below all others."""

    def _logits(self, x):
        z = super()._logits(x)
        return np.concatenate([z[:, ::-1] if x.shape[0] == 1 else z, np.full((len(z), 1), -1e4, np.float32)], axis=1)


class FlatAtTheEnds(LinearSession):
    """Its gradient is 0 in each pixel that is black or white, as behind a ReLU of x and of 1 - x."""

    def loss_gradient(self, x, loss):
        z, value, gradient = super().loss_gradient(x, loss)
        return z, value, gradient * (x > 0) * (x < 1)


def planned(target, names):
    """Return what the attacks of these names run on a target."""
    return plan_suite(names, target.classes, target.session.card(), lends=target.lender is not None)

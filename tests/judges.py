"""Judges that run no gradient graph: the answers are ONNX Runtime's, or changed as an engine may change them."""

import numpy as np

from runtime.backends.ort import OrtSession
from runtime.backends.pairing import Runner
from runtime.backends.table import Backend
from runtime.session import Judge

JUDGE = Runner("tensorrt", "tensorrt")
"""A row of the table that tests put another judge into: its names are known to the command line."""


class OnlyJudges(Judge):
    """ONNX Runtime's forward pass alone."""

    def __init__(self, forward, precision):
        self.session = OrtSession(forward, None, precision=precision)

    def logits(self, x):
        return self.session.logits(x)

    def card(self):
        card = self.session.card()
        return type(card)(
            card.sha256, card.precision, JUDGE.backend, JUDGE.provider, "chip", differentiable=False, facts=card.facts
        )

    def close(self):
        self.session.close()

    @classmethod
    def backend(cls):
        """Return the row of the table that opens it."""
        return Backend(
            lambda bundle, how: cls(bundle.read(bundle.manifest.graphs[how.precision].forward), how.precision),
            (JUDGE.provider,),
            lambda: JUDGE.provider,
            libraries=("pydantic",),
        )


class Shifted(OnlyJudges):
    """An engine that runs something else: it answers every class as the next."""

    def logits(self, x):
        return np.roll(super().logits(x), 1, axis=1)


class Coarse(OnlyJudges):
    """An engine that rounds what it is fed to 9 levels, and does not say so: small perturbations vanish."""

    def logits(self, x):
        return super().logits(np.round(x * 8) / 8)


class Remembering(OnlyJudges):
    """An engine behind a cache that takes an image for one that it saw before."""

    def __init__(self, forward, precision):
        super().__init__(forward, precision)
        self.seen = {}

    def logits(self, x):
        answers = super().logits(x)
        keys = [np.round(image, 1).tobytes() for image in x]
        return np.stack([self.seen.setdefault(key, z) for key, z in zip(keys, answers, strict=True)])

"""Records of what the attack suite measured, which report.json and shard.json share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runtime.records.request import GradientSource, labelled
from runtime.spec import Fraction, Frozen, Text

Count = Annotated[int, Field(ge=0)]
Interval = tuple[float, float]


class AttackRow(Frozen):
    """An attack on all correctly classified images. Accuracy is a fraction of n; forwards and gradients count images.

    If `cascade`, it ran on the images that earlier stages of its cascade left, and a row for the whole cascade follows.
    A `gradient` 'own' is that of the artifact's gradient graph, whichever engine computed it (`Artifact.lender`).
    """

    name: Text
    cascade: bool
    gradient: GradientSource
    attacked: Count
    broken: Count
    accuracy: Fraction
    ci95: Interval
    seconds: float
    forwards: Count
    gradients: Count

    @property
    def label(self) -> str:
        """The attack's name, with '(parent)' if it followed the parent's gradient."""
        return labelled(self.name, self.gradient)


class CurvePoint(Frozen):
    """Accuracy under PGD-10 at one eps, on n images drawn at random."""

    eps: float
    n: Count
    accuracy: Fraction


class Agreement(Frozen):
    """On how many of n points, clean and adversarial, the gradient graph predicts the artifact's class.

    `near`: on how many of `images` the logits are equal up to rounding, at these points and at the end of a step by
    most of eps. Both are null if an engine of edgeproof judged.
    """

    n: Count
    same_prediction: Count
    near: Count | None = None
    images: Count | None = None


class Probe(Frozen):
    """Several passes over a sample: how many images get different answers, and how many get probabilities as logits.

    `otherwise_alone`: images whose answer in a batch differs from that alone.
    """

    n: Count
    randomised: Count
    probabilities: Count
    otherwise_alone: Count = 0


class GradientTest(Frozen):
    """Tests of the gradient on n surviving images of the sample; each count is of failures.

    The gradient is the artifact's own, or its parent's if it has none.

    `apart_near` and `apart_far`: it does not predict how the artifact changes over a short and over a long step.
    `unsteady`: it turns if the image changes a little. `jumps`: on so many of `lines` between two images, the class
    changes without a slope that leads there; for a `surrogate`, in one step. For a surrogate, `apart_near` and
    `unsteady` are null, because not tested, and `unrelated` is tested: it has nothing to do with how the artifact
    changes over a wide step.
    """

    n: Count
    surrogate: bool = False
    apart_near: Count | None = None
    apart_far: Count
    unrelated: Count | None = None
    unsteady: Count | None = None
    lines: Count | None = None
    jumps: Count | None = None


class Searched(Frozen):
    """Searches without gradients on n images that survived the attacks with gradients.

    The searches broke `broken` images, counted `by` search; `alone` of them also survive gradient attacks from
    another start. `forwards` and `gradients` count images.
    """

    n: Count
    broken: Count
    alone: Count
    by: dict[Text, Count]
    seconds: float
    forwards: Count
    gradients: Count


class Fusion(Frozen):
    """Images classified with the engine's optimisations and without them.

    `same_prediction` of n get the same class. `only_optimised` and `only_plain` are correct only with, or only without.
    """

    n: Count
    same_prediction: Count
    only_optimised: Count
    only_plain: Count

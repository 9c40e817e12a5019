"""What a GPU check leaves: gpu-check.json, to send back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runtime.spec import Digest, Document, Fraction, Frozen, Name, Text

Count = Annotated[int, Field(ge=0)]
State = Literal["agrees", "differs", "not there", "failed"]


class Spread(Frozen):
    """Median, 99 % quantile and largest of one value an image."""

    median: float
    high: float
    largest: float


class EngineComparison(Frozen):
    """One precision on the GPU beside ONNX Runtime on the CPU, image by image.

    Args:
        precision: of the graph.
        sha256: of the graph.
        engine_sha256: of the engine, where there is one file of it.
        device: as the driver calls it.
        n: images.
        same_prediction: how many get the same class.
        logit_error: largest difference of an image's logits, over their largest size.
        batch_error: the same between an image in a batch and alone; of a few images.
        gradient_error: of cross-entropy, ||g - g'|| / ||g'||; None without gradient graph.
        gradient_cosine: cosine of the two gradients, the smallest.
        attack: what was run on both, with the same noise.
        same_verdict: images that both break, or neither.
        robust: standing images of n on the GPU, and
        robust_reference: on the CPU.
        milliseconds: an image, forward, in the largest batch; no benchmark.
        beyond: limits that do not hold, in words.

    """

    precision: Name
    sha256: Digest
    engine_sha256: Digest | None
    device: Text
    n: Count
    same_prediction: Count
    logit_error: Spread
    batch_error: float
    gradient_error: Spread | None = None
    gradient_cosine: float | None = None
    attack: Text | None = None
    same_verdict: Count | None = None
    robust: Count | None = None
    robust_reference: Count | None = None
    milliseconds: float
    beyond: tuple[Text, ...]


class Result(Frozen):
    """One check: whether GPU and CPU agree; or what was not there, or failed."""

    name: Text
    state: State
    message: Text
    hint: Text | None = None
    seconds: float = 0.0
    comparisons: tuple[EngineComparison, ...] = ()
    figures: dict[Text, float | Text] = Field(default_factory=dict)


class Tolerances(Frozen):
    """How far a GPU may be from the CPU in one precision; fractions are of images.

    Args:
        same_prediction: at least; one image may always differ.
        same_verdict: at least; one image may always differ.
        gradient_error: at most, the median.
        gradient_cosine: at least, of every image.

    """

    same_prediction: Fraction
    same_verdict: Fraction
    gradient_error: float
    gradient_cosine: float


class GpuCheck(Frozen):
    """gpu-check.json."""

    schema_: Literal["edgeproof.gpu-check/1"] = Field(alias="schema", default="edgeproof.gpu-check/1")
    bundle: Text
    manifest_sha256: Digest
    data: Text
    n: Count
    device: Document
    software: dict[Text, Text]
    started: Text
    results: tuple[Result, ...]

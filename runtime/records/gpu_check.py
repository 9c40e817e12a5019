"""gpu-check.json, the report of a GPU check."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runtime.spec import Digest, Document, Fraction, Frozen, Name, Text

Count = Annotated[int, Field(ge=0)]
State = Literal["agrees", "differs", "not there", "failed"]


class Spread(Frozen):
    """The median, 99 % quantile and largest of one value per image."""

    median: float
    high: float
    largest: float


class EngineComparison(Frozen):
    """A comparison of one precision on the GPU with ONNX Runtime on the CPU, image by image.

    Args:
        precision: of the graph.
        sha256: of the graph.
        engine_sha256: of the engine, if it is one file.
        device: the driver's name of the GPU.
        n: number of images.
        same_prediction: images with the same class on both.
        logit_error: an image's largest difference of logits, relative to its largest absolute logit.
        batch_error: the same between an image in a batch and alone, the largest over a few images.
        gradient_error: ||g - g'|| / ||g'|| for cross-entropy; None without a gradient graph.
        gradient_cosine: the smallest cosine of the two gradients.
        attack: the attack that ran on both, with the same noise.
        same_verdict: images that are broken on both or on neither.
        robust: images that survive on the GPU.
        robust_reference: images that survive on the CPU.
        milliseconds: per image of a forward pass in the largest batch; this is no benchmark.
        beyond: the limits that are exceeded, in words.

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
    """The result of one check: GPU and CPU agree or differ, or something was missing or failed."""

    name: Text
    state: State
    message: Text
    hint: Text | None = None
    seconds: float = 0.0
    comparisons: tuple[EngineComparison, ...] = ()
    figures: dict[Text, float | Text] = Field(default_factory=dict)


class Tolerances(Frozen):
    """The limits of a comparison in one precision.

    Args:
        same_prediction: the least fraction of images; one image may always differ.
        same_verdict: the least fraction of images; one image may always differ.
        gradient_error: the largest median.
        gradient_cosine: the least cosine of any image.

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

"""Exports a PyTorch network as an ONNX model without metadata."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from typing import TYPE_CHECKING

import torch

from export.graph.passes import OPSETS, opset_of, prepare
from runtime.errors import BadModel, first_line
from runtime.session import INPUT, LOGITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from export.graph.passes import Prepared
    from runtime.bundle.manifest import InputShape

OPSET = 20


def to_onnx(network: nn.Module, shape: InputShape) -> Prepared:
    """Export a classifier in float32, dynamic in the batch only, batch normalisation folded.

    Args:
        network: images [B, C, H, W] in [0, 1] to logits [B, K], with its normalisation inside. Left as it is:
            a copy is exported, in evaluation mode.
        shape: one image.

    Returns:
        A model with input `input` and output `logits`, without metadata; the same for the same network.

    Raises:
        BadModel: PyTorch cannot export the network, or not at an opset that edgeproof works with.

    """
    frozen = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    example = torch.zeros(2, shape.channels, shape.height, shape.width)
    with _silence():
        try:
            program = torch.onnx.export(
                frozen,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[LOGITS],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise BadModel(
                f"PyTorch cannot export this network: {_cause(error)}",
                hint="remove branches that depend on values from its forward pass",
            ) from error
    assert program is not None
    model = program.model_proto
    if opset_of(model) not in OPSETS:
        raise BadModel(f"PyTorch exported opset {opset_of(model)} instead of {OPSET}")
    return prepare(model)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress lines, its log and its own deprecations away from the user."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def _cause(error: BaseException) -> str:
    """Return the first line of the innermost error: the exporter's own are pages of advice."""
    while error.__cause__:
        error = error.__cause__
    return first_line(error)

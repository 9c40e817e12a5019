"""Classifiers as other people's tools write them: exported by PyTorch, or built node by node."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper, parser
from torch import nn

from runtime.backends.ort import OrtSession
from runtime.bundle.opening import open_bundle
from runtime.cli import main
from runtime.session import LossSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from onnx import ModelProto

    from runtime.bundle.opening import Bundle


def stranger(
    nodes: Sequence[str],
    *,
    dims: Sequence[Any],
    out: Sequence[Any],
    constants: Mapping[str, Any],
    opset: int = 18,
    names: tuple[str, str] = ("image", "scores"),
    kind: int = TensorProto.FLOAT,
    weights_as_inputs: bool = False,
) -> ModelProto:
    """Build a model from ONNX text, one node a line, with names, sizes and opset of its own."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensors = [
        numpy_helper.from_array(np.asarray(v, dtype if np.asarray(v).dtype.kind == "f" else None), n)
        for n, v in constants.items()
    ]
    inputs = [helper.make_tensor_value_info(names[0], kind, dims)]
    if weights_as_inputs:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = helper.make_graph(
        [parser.parse_node(line) for line in nodes],
        "stranger",
        inputs,
        [helper.make_tensor_value_info(names[1], kind, out)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10 if opset > 14 else 4)


def pictures(n: int, image: tuple[int, ...], seed: int = 0) -> Any:
    """Return images that differ as a whole, in colour and contrast, not only in their noise: float32 [n, *image]."""
    random = np.random.default_rng(seed)
    base, contrast = random.random((n, image[0], 1, 1)), random.random((n, 1, 1, 1))
    return np.clip(base + contrast * (random.random((n, *image)) - 0.5), 0, 1).astype(np.float32)


def prepared(network: nn.Module, image: tuple[int, ...]) -> nn.Module:
    """Give a network weights and statistics like a trained one's, so that its logits and gradients are no noise."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None  # an average over all passes
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    for name, parameter in network.named_parameters():
        if any(word in name for word in ("gamma", "layer_scale", ".ls")):
            nn.init.uniform_(parameter, 0.3, 1)
    network.train()
    with torch.no_grad():
        for seed in (1, 2):
            network(torch.from_numpy(pictures(16, image, seed)))
    return network.eval().requires_grad_(False)


def export(network: nn.Module, example: torch.Tensor, path: Path, *, dynamo: bool, dynamic: bool, opset: int) -> None:
    """Export by one of PyTorch's two exporters, as a user would, to a file."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the older exporter knows no fused attention
    logging.disable(logging.WARNING)
    given: dict[str, Any] = {"opset_version": opset}
    if dynamic and dynamo:
        given["dynamic_shapes"] = ({0: torch.export.Dim("n")},)
    elif dynamic:
        given |= {"input_names": ["pixels"], "dynamic_axes": {"pixels": {0: "n"}}}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (example,), str(path), dynamo=dynamo, verbose=False, **given)
    finally:
        logging.disable(logging.NOTSET)
        torch.backends.mha.set_fastpath_enabled(fastpath)


def command(*words: Any) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


def packed(model: Path, data: Path, out: Path, *options: Any) -> Bundle:
    """Pack on the command line and open the bundle."""
    result = command("pack", model, "--data", data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return open_bundle(out)


def changes_of(bundle: Bundle) -> str:
    """Return what was done to a packed model, in words."""
    assert bundle.manifest.packed
    return " / ".join(bundle.manifest.packed.changes)


def session_of(bundle: Bundle) -> OrtSession:
    graph = bundle.manifest.graphs[bundle.manifest.ships]
    gradient = bundle.read(graph.gradient) if graph.gradient else None
    return OrtSession(bundle.read(graph.forward), gradient, precision=bundle.manifest.ships, threads=1)


def gradient_of(session: OrtSession, x: Any, cotangent: Any) -> Any:
    """Return the gradient of <cotangent, logits>."""
    label = np.eye(cotangent.shape[1], dtype=np.float32)[np.zeros(len(x), int)]
    loss = LossSpec(np.zeros((len(x), 4), np.float32), label, np.zeros_like(label), cotangent)
    return session.loss_gradient(x, loss)[2]

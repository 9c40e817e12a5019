"""Reads any ONNX file of bounded size, with external weights from its own directory only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto, checker, external_data_helper, inliner

from export.graph.sorting import sort_nodes
from runtime.errors import BadModel, first_line
from runtime.files import sha256

LARGEST = 2**31 - 2**20
"""Bytes of a model with its weights: one protobuf message ends at 2 GiB, and the gradient graph is one."""


def read_model(path: Path) -> ModelProto:
    """Read an ONNX file, its external weights, and its local functions into one graph, its nodes sorted.

    Raises:
        BadModel: it cannot be read, is no ONNX, is damaged or too large; or its weights lie outside its
            directory, behind a link, or are missing.

    """
    _check_size(path, path.stat().st_size)
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise BadModel(f"{path} is not an ONNX model, or is truncated", hint="export or copy it again") from None
    if not model.graph.node or not model.opset_import:
        raise BadModel(f"{path} holds no ONNX graph", hint="export or copy it again")
    _load_external(model, path)
    sort_nodes(model.graph)
    try:
        checker.check_model(model)
        return inliner.inline_local_functions(model) if model.functions else model
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        raise BadModel(f"{path} is not valid ONNX: {first_line(error)}", hint="export it again") from None


def model_sha256(path: Path) -> str:
    """Return the digest of an ONNX file; with external weights, of the list of its digest and theirs by name.

    Raises:
        BadModel: see `read_model`.

    """
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    files = sorted({_external_file(tensor, path) for tensor in _external(model)})
    digest = sha256(path.read_bytes())
    listed = (f"{sha256(file.read_bytes())}  {file.relative_to(path.parent)}" for file in files)
    return sha256("\n".join([digest, *listed]).encode()) if files else digest


def _load_external(model: ModelProto, path: Path) -> None:
    external = _external(model)
    files = {_external_file(tensor, path) for tensor in external}
    _check_size(path, path.stat().st_size + sum(file.stat().st_size for file in files))
    for tensor in external:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, checker.ValidationError) as error:
            raise BadModel(f"{path}: weights {tensor.name!r} cannot be read: {first_line(error)}") from None
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _external(message: Message) -> list[TensorProto]:
    """Return the tensors anywhere in a model, also those of functions and sparse ones, whose values are in files."""
    if isinstance(message, TensorProto):
        return [message] if message.data_location == TensorProto.EXTERNAL else []
    inside = (value for field, value in message.ListFields() if field.message_type)
    parts = (value if isinstance(value, Sequence) else [value] for value in inside)
    return [tensor for part in chain.from_iterable(parts) for tensor in _external(part)]


def _external_file(tensor: TensorProto, path: Path) -> Path:
    """Return the file of an external tensor, which must be a plain one inside the model's directory."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    file = path.parent / location
    inside = file.resolve().is_relative_to(path.parent.resolve())
    if not location or Path(location).is_absolute() or not inside or file.is_symlink():
        raise BadModel(
            f"{path} keeps weights in {location!r}, outside its directory",
            hint="save model and weights in one directory",
        )
    if not file.is_file():
        raise BadModel(
            f"{path}: its weights {location!r} are missing", hint="copy them into the directory of the model"
        )
    return file


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise BadModel(
            f"{path} has {size / 1e9:.1f} GB, more than one graph can hold", hint="edgeproof accepts up to 2 GB"
        )

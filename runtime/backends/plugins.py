"""Execution providers that come to ONNX Runtime as a library of their own, as it loads them: one loader for all.

Such a library is native code: it runs with all that the user may do, and nothing here confines it. Its digest goes into
the record of a run, which tells one file from another, and says nothing of what that file loads in its turn.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.backends.providers import PROVIDERS, Plugin, Provider, load_onnxruntime
from runtime.errors import MissingEnvironment, Page, UsageFault, first_line
from runtime.files import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "plugin:"
SUFFIX = "ExecutionProvider"
PACKAGES = "onnxruntime-ep-"
"""How packages are called that bring a library and say where it lies, by `get_library_path`."""
KINDS = ("cpu", "gpu", "npu")
"""Devices, as ONNX Runtime's OrtHardwareDeviceType calls them."""
SETTINGS = {
    "OpenVINOExecutionProvider": {"load_config": '{"%s": {"INFERENCE_PRECISION_HINT": "%s"}}'},
}
"""What providers are asked for that else compute in less than the graph says, by the name of the provider.

OpenVINO's takes bfloat16 on a CPU that has it, without a word, and float16 on a GPU. Its own `precision` is ignored.
"""
ARITHMETIC = {"CPU": "f32", "GPU": "f32", "NPU": "f16"}

_given: list[Path] = []
"""The libraries that --provider-library named; ONNX Runtime too keeps its libraries a process long."""


class Library(NamedTuple):
    """A library that ONNX Runtime has loaded, with the devices that it brought and the digest of its file."""

    sha256: str
    devices: tuple[Any, ...]


def is_plugin(provider: str) -> bool:
    """Return whether a provider is called plugin:NAME or plugin:NAME:DEVICE."""
    name, _, device = provider.removeprefix(PREFIX).partition(":")
    return provider.startswith(PREFIX) and bool(name) and (not device or device in KINDS) and not provider.endswith(":")


def installed() -> tuple[str, ...]:
    """Return the plugins whose packages are installed, as plugin:openvino."""
    names = (distribution.name for distribution in distributions())
    return tuple(sorted({PREFIX + name.removeprefix(PACKAGES) for name in names if name.startswith(PACKAGES)}))


def use_library(path: Path) -> None:
    """Look for plugins in this file alone from now on, never in an installed package."""
    _given.append(path.resolve())


def provider_named(provider: str) -> Provider:
    """Return one of ONNX Runtime's own PROVIDERS, or the one that a plugin brings.

    Raises:
        MissingEnvironment: the library is missing or does not load, or it has no such provider or device here.
        UsageFault: it has devices of several kinds, and none is named.

    """
    if not is_plugin(provider):
        return PROVIDERS[provider]
    wanted, _, kind = provider.removeprefix(PREFIX).partition(":")
    libraries = [_load(path) for path in _given] or [_load(_packaged(wanted))]
    found = [(library, each) for library in libraries for each in library.devices if _called(each, wanted)]
    if not found:
        names = sorted({each.ep_name for library in libraries for each in library.devices})
        raise MissingEnvironment(
            f"the library has no execution provider {wanted}", hint=f"it has: {', '.join(names) or 'none'}"
        )
    kinds = sorted({_kind(each) for _, each in found})
    if not kind and len(kinds) > 1:
        raise UsageFault(
            f"{provider} has several devices",
            hint="choose " + " or ".join(f"--provider {provider}:{each}" for each in kinds),
        )
    chosen = [(library, each) for library, each in found if _kind(each) == (kind or kinds[0])]
    if not chosen:
        raise MissingEnvironment(f"this machine has no {provider}", hint=f"it has: {', '.join(kinds)}")
    library, device = chosen[0]
    return Provider(device.ep_name, plugin=Plugin(device, _settings(device), library.sha256, _device_name(device)))


def _packaged(wanted: str) -> Path:
    """Return where the library of an installed package onnxruntime-ep-NAME lies."""
    package = PACKAGES + wanted.removesuffix(SUFFIX).lower()
    try:
        return Path(import_module(package.replace("-", "_")).get_library_path()).resolve()
    except (ImportError, OSError, AttributeError) as error:
        raise MissingEnvironment(
            f"the plugin {wanted} is not installed: {first_line(error)}",
            hint=f"pip install {package}, or name its file with --provider-library FILE",
            page=Page.OPENVINO,
        ) from None


@cache
def _load(path: Path) -> Library:
    """Register a library in ONNX Runtime, once a process."""
    runtime = load_onnxruntime()
    if not hasattr(runtime, "register_execution_provider_library"):
        raise MissingEnvironment(
            f"ONNX Runtime {runtime.__version__} cannot load plugins", hint="install onnxruntime 1.23 or newer"
        )
    try:
        digest, before = sha256(path.read_bytes()), _names(runtime.get_ep_devices())
        runtime.register_execution_provider_library(f"edgeproof-{digest[:16]}", str(path))
    except Exception as error:  # ONNX Runtime's own errors share no base but this one
        raise MissingEnvironment(
            f"{path} is not an ONNX Runtime plugin: {first_line(error)}", hint="name another FILE"
        ) from None
    return Library(digest, tuple(each for each in runtime.get_ep_devices() if each.ep_name not in before))


def _names(devices: Iterable[Any]) -> set[str]:
    return {each.ep_name for each in devices}


def _called(device: Any, wanted: str) -> bool:
    """Return whether a device is of the provider asked for, by its own name or without its end, as openvino."""
    return bool(device.ep_name.removesuffix(SUFFIX).lower() == wanted.removesuffix(SUFFIX).lower())


def _kind(device: Any) -> str:
    return str(device.device.type.name).lower()


def _settings(device: Any) -> dict[str, str]:
    kind = _kind(device).upper()
    return {key: text % (kind, ARITHMETIC[kind]) for key, text in SETTINGS.get(device.ep_name, {}).items()}


def _device_name(device: Any) -> str:
    told = dict(device.ep_metadata)
    named = told.get("FULL_DEVICE_NAME") or f"{device.device.vendor} {_kind(device).upper()}"
    return f"{named} by {device.ep_name} {told.get('version', '')}".strip()

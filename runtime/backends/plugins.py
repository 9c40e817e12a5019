"""Execution providers that ONNX Runtime loads from a separate library (a plugin).

Such a library is native code. It has all permissions of the user, and nothing here confines it. The record of a run has
the digest of its file, but not of the files that it loads in turn.
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
"""The prefix of packages that contain such a library; their function `get_library_path` returns its path."""
KINDS = ("cpu", "gpu", "npu")
"""Kinds of devices, by the names of ONNX Runtime's OrtHardwareDeviceType."""
SETTINGS = {
    "OpenVINOExecutionProvider": {"load_config": '{"%s": {"INFERENCE_PRECISION_HINT": "%s"}}'},
}
"""Options for providers that would otherwise compute in a narrower type than the graph's, by the provider's name.

OpenVINO's silently uses bfloat16 on a CPU that has it, and float16 on a GPU. It ignores its own option `precision`.
"""
ARITHMETIC = {"CPU": "f32", "GPU": "f32", "NPU": "f16"}

_given: list[Path] = []
"""The libraries that --provider-library named. ONNX Runtime also keeps a library until the process ends."""


class Library(NamedTuple):
    """A loaded library: the digest of its file, and the devices that it added."""

    sha256: str
    devices: tuple[Any, ...]


def is_plugin(provider: str) -> bool:
    """Return whether a provider's name is plugin:NAME or plugin:NAME:DEVICE."""
    name, _, device = provider.removeprefix(PREFIX).partition(":")
    return provider.startswith(PREFIX) and bool(name) and (not device or device in KINDS) and not provider.endswith(":")


def installed() -> tuple[str, ...]:
    """Return the names of the plugins whose packages are installed, such as plugin:openvino."""
    names = (distribution.name for distribution in distributions())
    return tuple(sorted({PREFIX + name.removeprefix(PACKAGES) for name in names if name.startswith(PACKAGES)}))


def use_library(path: Path) -> None:
    """From now on, take plugins from this file and not from installed packages."""
    _given.append(path.resolve())


def provider_named(provider: str) -> Provider:
    """Return the provider of this name, from PROVIDERS or from a plugin.

    Raises:
        MissingEnvironment: the plugin's library is missing, does not load, or has no such provider or device here.
        UsageFault: the plugin has devices of several kinds, and the name does not choose one.

    """
    if not is_plugin(provider):
        return PROVIDERS[provider]
    wanted, _, kind = provider.removeprefix(PREFIX).partition(":")
    libraries = [_load(path) for path in _given] or [_load(_packaged(wanted))]
    found = [(library, each) for library in libraries for each in library.devices if _called(each, wanted)]
    names = sorted({each.ep_name for library in libraries for each in library.devices})
    if not names:
        raise MissingEnvironment(
            "the library supports no device of this machine",
            hint="OpenVINO's needs a processor, GPU or NPU by Intel; of others, its documentation says what it needs",
        )
    if not found:
        raise MissingEnvironment(f"the library has no execution provider {wanted}", hint=f"it has: {', '.join(names)}")
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
    """Return the path of the library in the installed package onnxruntime-ep-NAME."""
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
    """Register a library in ONNX Runtime, once per process."""
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
    """Return whether a device belongs to the provider `wanted`, given with or without SUFFIX, such as openvino."""
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

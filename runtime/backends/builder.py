"""What builds TensorRT engines, found by entry point: it lies in `export`, which the runtime never imports."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from runtime.errors import MissingEnvironment, install, missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.tensorrt.library import Library
    from runtime.tensorrt.store import Built, EngineKey

PREPARERS_GROUP = "edgeproof.preparers"
"""The suffix of a file, to a function of (path, bundle to be made, Wanted, ThreatModel); and BUILDER."""
BUILDER = "engine"
"""No suffix: `export.tensorrt.build`."""


def engine_builder() -> Callable[[Library, bytes, EngineKey, bytes], Built]:
    """Return what builds TensorRT engines.

    Raises:
        MissingEnvironment: it is not installed.

    """
    for entry in entry_points(group=PREPARERS_GROUP, name=BUILDER):
        try:
            build: Callable[[Library, bytes, EngineKey, bytes], Built] = entry.load()
        except ImportError as error:
            raise missing_extra("building a TensorRT engine", tuple(entry.extras), error) from error
        return build
    raise MissingEnvironment("no installed package builds TensorRT engines", hint=install("jetson"))

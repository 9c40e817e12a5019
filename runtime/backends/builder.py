"""The builder of TensorRT engines, found by entry point because it is in `export`, which runtime never imports."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from runtime.errors import MissingEnvironment, install, missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.tensorrt.library import Library
    from runtime.tensorrt.store import Built, EngineKey

PREPARERS_GROUP = "edgeproof.preparers"
"""Entry points: from a file's suffix to a function of (path, path of new bundle, Wanted, ThreatModel); and BUILDER."""
BUILDER = "engine"
"""The one name that is not a suffix; it is the entry point of `export.tensorrt.build`."""


def engine_builder() -> Callable[[Library, bytes, EngineKey, bytes], Built]:
    """Return the function that builds TensorRT engines.

    Raises:
        MissingEnvironment: no installed package has it.

    """
    for entry in entry_points(group=PREPARERS_GROUP, name=BUILDER):
        try:
            build: Callable[[Library, bytes, EngineKey, bytes], Built] = entry.load()
        except ImportError as error:
            raise missing_extra("building a TensorRT engine", tuple(entry.extras), error) from error
        return build
    raise MissingEnvironment("no installed package builds TensorRT engines", hint=install("jetson"))

"""BACKENDS: the engines that can run an artifact, and how each opens one precision of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.errors import BadBundle
from runtime.session_ort import OrtSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.bundle import Bundle
    from runtime.session import Session


def _open_ort(bundle: Bundle, precision: str, provider: str) -> Session:
    graph = bundle.manifest.graphs[precision]
    gradient = bundle.read(graph.gradient) if graph.gradient else None
    return OrtSession(bundle.read(graph.forward), gradient, precision=precision, provider=provider)


BACKENDS: dict[str, Callable[[Bundle, str, str], Session]] = {"ort": _open_ort}


def open_session(bundle: Bundle, *, precision: str, backend: str, provider: str) -> Session:
    """Open one precision of a bundle on one backend.

    Args:
        bundle: every byte of it checked.
        precision: a key of the manifest's graphs.
        backend: a key of BACKENDS.
        provider: of ONNX Runtime.

    Raises:
        BadBundle: the bundle has no such precision.
        BadModel: a graph cannot be loaded.
        MissingEnvironment: the backend or provider does not work here.

    """
    if precision not in bundle.manifest.graphs:
        has = ", ".join(sorted(bundle.manifest.graphs))
        raise BadBundle(f"{bundle.path} holds no precision {precision!r}", hint=f"it has: {has}")
    return BACKENDS[backend](bundle, precision, provider)

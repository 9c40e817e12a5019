"""BACKENDS: the engines that can run an artifact, and how each opens one precision of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.errors import BadBundle
from runtime.session_ort import OrtSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.bundle import Bundle
    from runtime.session import Session


def _open_ort(bundle: Bundle, precision: str, provider: str, *, gradient: bool) -> Session:
    graph = bundle.manifest.graphs[precision]
    derived = bundle.read(graph.gradient) if graph.gradient and gradient else None
    return OrtSession(bundle.read(graph.forward), derived, precision=precision, provider=provider)


BACKENDS: dict[str, Callable[..., Session]] = {"ort": _open_ort}


def open_session(bundle: Bundle, *, precision: str, backend: str, provider: str, gradient: bool = True) -> Session:
    """Open one precision of a bundle on one backend.

    Args:
        bundle: every byte of it checked.
        precision: a key of the manifest's graphs.
        backend: a key of BACKENDS.
        provider: of ONNX Runtime.
        gradient: whether to open its gradient graph too.

    Raises:
        BadBundle: the bundle has no such precision.
        BadModel: a graph cannot be loaded.
        MissingEnvironment: the backend or provider does not work here.

    """
    if precision not in bundle.manifest.graphs:
        has = ", ".join(sorted(bundle.manifest.graphs))
        raise BadBundle(f"{bundle.path} holds no precision {precision!r}", hint=f"it has: {has}")
    return BACKENDS[backend](bundle, precision, provider, gradient=gradient)

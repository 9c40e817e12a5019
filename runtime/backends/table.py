"""BACKENDS: the engines that can run an artifact, and how each opens one precision of a bundle.

An engine's modules are imported when it is opened, because `--help` lists engines without opening any.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from runtime.backends.builder import engine_builder
from runtime.backends.plugins import installed, is_plugin
from runtime.backends.providers import PROVIDERS
from runtime.errors import BadBundle, UsageFault
from runtime.external import BACKEND as COMMAND
from runtime.external import PROVIDER as PROCESS
from runtime.files import sha256
from runtime.openvino.library import PROVIDERS as OPENVINO
from runtime.session import BorrowedGradient, Session
from runtime.tensorrt.library import EDITIONS, installed_edition
from runtime.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.bundle.opening import Bundle
    from runtime.session import Judge


@dataclass(frozen=True)
class Opening:
    """Settings with which one precision of a bundle is opened.

    Args:
        precision: a key of the manifest's graphs.
        provider: one of the backend's.
        gradient: whether to open the gradient graph too, if the engine can run it; the card says whether it can.
        tf32: let a GPU round the factors of float32 products to TF32.
        state: the directory in which engines are kept; None for the user's cache.
        command: the command that starts a judge process; None if an engine judges.

    """

    precision: str
    provider: str
    gradient: bool = True
    tf32: bool = False
    state: Path | None = None
    command: str | None = None


@dataclass(frozen=True)
class Backend:
    """An engine that runs artifacts.

    Args:
        open: returns a judge, which is a Session if the engine may also differentiate.
        providers: the variants or devices on which it can run.
        default: returns the provider to use if none is requested.
        plugins: returns the installed providers plugin:NAME; None if the engine has no plugins.
        libraries: the packages that decide its answers, besides NumPy and onnxruntime.

    """

    open: Callable[[Bundle, Opening], Judge]
    providers: tuple[str, ...]
    default: Callable[[], str]
    plugins: Callable[[], tuple[str, ...]] | None = None
    libraries: tuple[str, ...] = ()


def _graphs(bundle: Bundle, how: Opening) -> tuple[bytes, bytes | None]:
    graph = bundle.manifest.graphs[how.precision]
    return bundle.read(graph.forward), bundle.read(graph.gradient) if graph.gradient and how.gradient else None


def _open_ort(bundle: Bundle, how: Opening) -> Session:
    from runtime.backends.ort import OrtSession

    forward, gradient = _graphs(bundle, how)
    opening = partial(
        OrtSession, forward, precision=how.precision, provider=how.provider, state=how.state, tf32=how.tf32
    )
    return _held(opening, forward, gradient, bundle, how) if is_plugin(how.provider) else opening(gradient)


def _open_tensorrt(bundle: Bundle, how: Opening) -> Session:
    from runtime.tensorrt.session import EngineFactory, TrtSession, open_accelerator
    from runtime.tensorrt.store import EngineStore, engines_directory, profile_for

    forward, gradient = _graphs(bundle, how)
    build = engine_builder()  # what may fail comes before what occupies the GPU
    accelerator = open_accelerator(how.provider)
    store = EngineStore(engines_directory(how.state), accelerator.gpu.identity())
    factory = EngineFactory(build, store, profile_for(bundle.manifest.input), how.tf32)
    return TrtSession(forward, gradient, precision=how.precision, factory=factory, accelerator=accelerator)


def _open_openvino(bundle: Bundle, how: Opening) -> Session:
    from runtime.openvino.session import OvSession

    forward, gradient = _graphs(bundle, how)
    opening = partial(OvSession, forward, precision=how.precision, provider=how.provider)
    return _held(opening, forward, gradient, bundle, how)


def _held(
    opening: Callable[[bytes | None], Session], forward: bytes, gradient: bytes | None, bundle: Bundle, how: Opening
) -> Session:
    """Open a session after comparing its gradients with those of ONNX Runtime on the CPU."""
    from runtime.backends.ort import OrtSession
    from runtime.backends.probe import with_true_gradient

    reference, image = partial(OrtSession, forward, gradient, precision=how.precision), bundle.manifest.input
    return with_true_gradient(opening, gradient, reference, (image.channels, image.height, image.width))


def no_command() -> UsageFault:
    """Return the error for a command that should judge but is not given."""
    return UsageFault(f"--backend {COMMAND} needs a command", hint='give it with --judge-command "CMD"')


def _start_command(bundle: Bundle, how: Opening) -> Judge:
    from runtime.external.session import ExternalJudge
    from runtime.graph.facts import graph_facts

    if how.command is None:
        raise no_command()
    forward, shape = bundle.read(bundle.manifest.graphs[how.precision].forward), bundle.manifest.input
    return ExternalJudge(
        how.command,
        artifact=sha256(forward),
        facts=graph_facts(forward),
        precision=how.precision,
        image=(shape.channels, shape.height, shape.width),
        classes=len(bundle.manifest.classes),
    )


BACKENDS = {
    "ort": Backend(
        _open_ort, tuple(PROVIDERS), lambda: next(iter(PROVIDERS)), plugins=installed, libraries=("onnxruntime-gpu",)
    ),
    "tensorrt": Backend(_open_tensorrt, tuple(EDITIONS), installed_edition, libraries=tuple(EDITIONS)),
    "openvino": Backend(_open_openvino, tuple(OPENVINO), lambda: next(iter(OPENVINO)), libraries=("openvino",)),
    COMMAND: Backend(_start_command, (PROCESS,), lambda: PROCESS),
}


def provider_of(backend: str, provider: str | None) -> str:
    """Return the requested provider, or the backend's default.

    Raises:
        UsageFault: there is no such backend, or it has no such provider.

    """
    if backend not in BACKENDS:
        raise UsageFault(
            f"{backend!r} is not a backend{did_you_mean(backend, BACKENDS)}",
            hint=f"a backend, with a provider or without, as ort:cpu or ort:cuda; backends: {', '.join(BACKENDS)}",
        )
    providers = BACKENDS[backend].providers
    if provider is not None and BACKENDS[backend].plugins and is_plugin(provider):
        return provider
    if provider is not None and provider not in providers:
        raise UsageFault(
            f"--backend {backend} has no provider {provider}{did_you_mean(provider, providers)}",
            hint=f"it has: {', '.join(providers)}",
        )
    return provider or BACKENDS[backend].default()


def check_precision(bundle: Bundle, precision: str) -> None:
    """Raise `BadBundle` if a bundle does not have this precision."""
    if precision not in bundle.manifest.graphs:
        has = sorted(bundle.manifest.graphs)
        raise BadBundle(
            f"{bundle.path} has no precision {precision!r}{did_you_mean(precision, has)}",
            hint=f"it has: {', '.join(has)}",
        )


def open_session(
    bundle: Bundle,
    *,
    precision: str,
    backend: str,
    provider: str,
    gradient: bool = True,
    tf32: bool = False,
    state: Path | None = None,
    command: str | None = None,
) -> Session:
    """Open one precision of a bundle on one backend. If the backend can only judge, the session has no gradient.

    Args:
        bundle: the bundle, whose files have all been checked.
        precision: a key of the manifest's graphs.
        backend: a key of BACKENDS.
        provider: see `provider_of`.
        gradient: whether to open the gradient graph too.
        tf32: see `Opening`.
        state: the directory in which engines are kept; None for the user's cache.
        command: see `Opening`.

    Raises:
        BadBundle: the bundle has no such precision.
        BadModel: a graph cannot be loaded.
        MissingEnvironment: the backend or provider does not work here.

    """
    check_precision(bundle, precision)
    judge = BACKENDS[backend].open(bundle, Opening(precision, provider, gradient, tf32, state, command))
    return judge if isinstance(judge, Session) else BorrowedGradient(judge, None)

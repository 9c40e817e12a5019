"""The options that say which engine runs an artifact, and the session that a command opens by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import click

from runtime.backends.providers import PROVIDERS, check_tf32
from runtime.backends.table import BACKENDS, open_session, provider_of
from runtime.options.record import field_option
from runtime.records.options import Option
from runtime.spec import Frozen, Name, Text
from runtime.tensorrt.library import EDITIONS

if TYPE_CHECKING:
    from runtime.bundle.opening import Bundle
    from runtime.session import Session


class EngineOptions(Frozen):
    """Which graph of a bundle runs, by which engine, and whether its gradient is used."""

    precision: Annotated[
        Text | None, Option("Which graph of the bundle.  [default: the one that ships]", always=True)
    ] = None
    backend: Annotated[
        Name,
        Option(
            "The engine that runs it. No fallback.",
            type=click.Choice(list(BACKENDS)),
            always=True,
            envvar="EDGEPROOF_BACKEND",
        ),
    ] = "ort"
    provider: Annotated[
        Name | None,
        Option(
            "Execution provider of ONNX Runtime, or library of TensorRT. No fallback.  "
            "[default: cpu; tensorrt where it is installed, else tensorrt-rtx]",
            type=click.Choice(list(dict.fromkeys((*PROVIDERS, *EDITIONS)))),
            always=True,
        ),
    ] = None
    gradient: Annotated[
        Literal["auto", "none"],
        Option(
            "none: no gradient is used, Square attacks alone; weak evidence.",
            always=True,
        ),
    ] = "auto"
    tf32: Annotated[bool, Option("Let a GPU round the factors of float32 products to TF32; recorded.")] = False

    @property
    def uses_gradient(self) -> bool:
        """Whether attacks may follow a gradient."""
        return self.gradient != "none"

    def with_provider(self) -> EngineOptions:
        """Return the options with the provider that the backend runs on.

        Raises:
            UsageFault: the backend has no such provider, or TF32 is let on a processor.

        """
        provider = provider_of(self.backend, self.provider)
        check_tf32(provider, self.tf32)
        return self.model_copy(update={"provider": provider})


backend_option, provider_option, tf32_option, gradient_option = (
    field_option(EngineOptions, name) for name in ("backend", "provider", "tf32", "gradient")
)


def command_session(bundle: Bundle, engine: EngineOptions, precision: str, **where: Any) -> Session:
    """Open a session, as `open_session` does; it is closed when the command ends, however it does."""
    assert engine.provider is not None
    session = open_session(
        bundle,
        precision=precision,
        backend=engine.backend,
        provider=engine.provider,
        gradient=engine.uses_gradient,
        tf32=engine.tf32,
        **where,
    )
    return click.get_current_context().with_resource(session)

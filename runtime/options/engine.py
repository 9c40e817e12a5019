"""The options that say what judges an artifact and what lends its gradient, and the sessions opened by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
from pydantic import BeforeValidator

from runtime.backends.pairing import Pairing, Runner, read_runner
from runtime.backends.providers import PROVIDERS, check_tf32
from runtime.backends.table import BACKENDS, provider_of
from runtime.errors import UsageFault
from runtime.options.record import field_option
from runtime.records.options import Option
from runtime.spec import Frozen, Name, Text
from runtime.tensorrt.library import EDITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.bundle.opening import Bundle


def _runner(value: Any) -> Any:
    return read_runner(value) if isinstance(value, str) else value


def _runners(value: Any) -> Any:
    """Return several of them in order, and once each."""
    return tuple(dict.fromkeys(map(read_runner, _words(value)))) if isinstance(value, str) else value


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


class EngineOptions(Frozen):
    """Which graph of a bundle is judged, by which engine, and whose gradient attacks follow."""

    precision: Annotated[
        Text | None,
        Option("Which graph of the bundle, or several with commas.  [default: the one that ships]", always=True),
    ] = None
    backend: Annotated[
        Name,
        Option(
            "The engine that judges: it decides of every point, by a forward pass. No fallback.",
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
    on: Annotated[
        tuple[Runner, ...],
        BeforeValidator(_runners),
        Option(
            "Judge on each of these, as ort:cpu,tensorrt (`edgeproof targets` lists them), and compare. The exit code "
            "is that of the first, in the precision that ships; where that is not asked for, in the first that is.",
            write=lambda runners: ",".join(map(str, runners)),
        ),
    ] = ()
    gradient: Annotated[
        Literal["auto", "none"],
        Option(
            "none: no gradient is used, Square attacks alone; weak evidence.",
            always=True,
        ),
    ] = "auto"
    gradient_backend: Annotated[
        Runner | None,
        BeforeValidator(_runner),
        Option(
            "What lends attacks the gradient, as ort or ort:cuda; it decides of no point.  "
            "[default: the judge where it runs the gradient graph, else ort:cpu]",
        ),
    ] = None
    tf32: Annotated[bool, Option("Let a GPU round the factors of float32 products to TF32; recorded.")] = False

    @property
    def uses_gradient(self) -> bool:
        """Whether attacks may follow a gradient."""
        return self.gradient != "none"

    @property
    def judge(self) -> Runner:
        """What judges, once `with_provider` has settled it."""
        assert self.provider is not None
        return Runner(self.backend, self.provider)

    def with_provider(self) -> EngineOptions:
        """Return the options with the provider that the backend runs on.

        Raises:
            UsageFault: the backend has no such provider, TF32 is let on a processor, or a gradient is to be lent that
                no attack may follow.

        """
        if self.on and self.provider:
            raise UsageFault("--on names the providers, and --provider another", hint="leave one of them out")
        backend = self.on[0].backend if self.on else self.backend
        provider = provider_of(backend, self.on[0].provider if self.on else self.provider)
        check_tf32(provider, self.tf32)
        if self.gradient_backend and not self.uses_gradient:
            raise UsageFault("--gradient none follows no gradient that --gradient-backend lends", hint="leave one out")
        return self.model_copy(update={"backend": backend, "provider": provider})

    @property
    def several(self) -> bool:
        """Whether more than one precision or runner is asked for."""
        return len(self.on) > 1 or len(_words(self.precision or "")) > 1

    def each(self, ships: str) -> tuple[EngineOptions, ...]:
        """Return the options of every precision on every runner that is asked for; `ships` where none is."""
        precisions = dict.fromkeys(_words(self.precision)) if self.precision else (ships,)
        ways = [(runner, precision) for runner in self.on or (self.judge,) for precision in precisions]
        return tuple(
            self.model_copy(
                update={"on": (), "backend": runner.backend, "provider": runner.provider, "precision": precision}
            )
            for runner, precision in ways
        )

    def stating_lender(self, lender: Runner | None) -> EngineOptions:
        """Return the options that name what lends the gradients, where that is not the judge."""
        return self.model_copy(update={"gradient_backend": None if lender == self.judge else lender})


on_option, backend_option, provider_option, tf32_option, gradient_option = (
    field_option(EngineOptions, name) for name in ("on", "backend", "provider", "tf32", "gradient")
)


def command_pairing(bundle: Bundle, engine: EngineOptions, state: Path | None) -> Pairing:
    """Return what opens a command's sessions; they are closed when it ends, however it does."""
    keep = click.get_current_context().with_resource
    return Pairing(
        bundle, engine.judge, engine.gradient_backend, engine.uses_gradient, tf32=engine.tf32, state=state, keep=keep
    )

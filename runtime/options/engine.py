"""The options that say what judges an artifact and what lends its gradient, and the sessions opened by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
from pydantic import BeforeValidator

from runtime.backends.pairing import Pairing, Runner, read_runner
from runtime.backends.plugins import is_plugin, use_library
from runtime.backends.providers import check_tf32
from runtime.backends.table import BACKENDS, provider_of
from runtime.errors import UsageFault
from runtime.options.record import field_option
from runtime.records.options import Option
from runtime.spec import Frozen, Name, ProviderName, Text

if TYPE_CHECKING:
    from runtime.bundle.opening import Bundle


def _runner(value: Any) -> Any:
    return read_runner(value) if isinstance(value, str) else value


def _runners(value: Any) -> Any:
    """Return several of them in order, and once each."""
    return tuple(dict.fromkeys(map(read_runner, _words(value)))) if isinstance(value, str) else value


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


class ProviderType(click.Choice):  # type: ignore[type-arg]  # click 8.1 takes none
    """One of the providers of the backends, or a plugin of ONNX Runtime's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what was given."""
        return value if isinstance(value, str) and is_plugin(value) else super().convert(value, param, ctx)


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
        ProviderName | None,
        Option(
            "Execution provider of ONNX Runtime, or plugin:NAME; device of OpenVINO; edition of TensorRT. No other.  "
            "[default: cpu; tensorrt where it is installed, else tensorrt-rtx]",
            type=ProviderType(list(dict.fromkeys(name for each in BACKENDS.values() for name in each.providers))),
            always=True,
        ),
    ] = None
    provider_library: Annotated[
        Path | None,
        Option(
            "The file of plugin:NAME: native code, which may do all that you may.  "
            "[default: that of the package onnxruntime-ep-NAME]",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
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
        choose_library(self.provider_library, provider, *self.on, *filter(None, [self.gradient_backend]))
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


def choose_library(library: Path | None, provider: str, *others: Runner) -> None:
    """Use the file that --provider-library names, which is of a plugin; raise `UsageFault` where none is asked for."""
    if library is None:
        return
    if not any(map(is_plugin, (provider, *(runner.provider for runner in others)))):
        raise UsageFault("--provider-library is the file of a plugin", hint="--provider plugin:NAME")
    use_library(library)


on_option, backend_option, provider_option, library_option, tf32_option, gradient_option = (
    field_option(EngineOptions, name) for name in ("on", "backend", "provider", "provider_library", "tf32", "gradient")
)


def command_pairing(bundle: Bundle, engine: EngineOptions, state: Path | None) -> Pairing:
    """Return what opens a command's sessions; they are closed when it ends, however it does."""
    keep = click.get_current_context().with_resource
    return Pairing(
        bundle, engine.judge, engine.gradient_backend, engine.uses_gradient, tf32=engine.tf32, state=state, keep=keep
    )

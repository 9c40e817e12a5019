"""The options that say what judges an artifact and what lends its gradient, and the sessions opened by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
from pydantic import BeforeValidator

from runtime.backends.pairing import DEFAULT_LENDER, Pairing, Runner, read_runner
from runtime.backends.providers import PROVIDERS, check_tf32
from runtime.backends.table import BACKENDS, provider_of
from runtime.commands.record_options import field_option
from runtime.errors import UsageFault
from runtime.external.session import BACKEND as COMMAND
from runtime.external.session import PROVIDER as PROCESS
from runtime.records.options import Option
from runtime.spec import Frozen, Name, Text
from runtime.tensorrt.library import EDITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.bundle.opening import Bundle


def _runner(value: Any) -> Any:
    return read_runner(value) if isinstance(value, str) else value


class EngineOptions(Frozen):
    """Which graph of a bundle is judged, by which engine, and whose gradient attacks follow."""

    precision: Annotated[
        Text | None, Option("Which graph of the bundle.  [default: the one that ships]", always=True)
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
            type=click.Choice(list(dict.fromkeys((*PROVIDERS, *EDITIONS, PROCESS)))),
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
    gradient_backend: Annotated[
        Runner | None,
        BeforeValidator(_runner),
        Option(
            "What lends attacks the gradient, as ort or ort:cuda; it decides of no point.  "
            "[default: the judge where it runs the gradient graph, else ort:cpu]",
        ),
    ] = None
    tf32: Annotated[bool, Option("Let a GPU round the factors of float32 products to TF32; recorded.")] = False
    judge_command: Annotated[
        Text | None,
        Option("A process that judges in place of --backend: it reads images on stdin and writes logits to stdout."),
    ] = None

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
            UsageFault: the backend has no such provider, TF32 is let on a processor, a gradient is to be lent that
                no attack may follow, or a command judges beside another backend, or is to lend.

        """
        if self.judge_command is not None and self.backend != COMMAND:
            return self._by_command().with_provider()
        provider = provider_of(self.backend, self.provider)
        check_tf32(provider, self.tf32)
        if self.gradient_backend and not self.uses_gradient:
            raise UsageFault("--gradient none follows no gradient that --gradient-backend lends", hint="leave one out")
        if self.gradient_backend and self.gradient_backend.backend == COMMAND:
            raise UsageFault("a command judges, and lends no gradient", hint=f"--gradient-backend {DEFAULT_LENDER}")
        lender = self.gradient_backend
        if self.backend == COMMAND and self.uses_gradient:  # it has no gradient to try first
            lender = lender or DEFAULT_LENDER
        return self.model_copy(update={"provider": provider, "gradient_backend": lender})

    def _by_command(self) -> EngineOptions:
        """Return the options that let the command judge."""
        if self.backend != EngineOptions.model_fields["backend"].default or self.provider or self.tf32:
            raise UsageFault(
                f"--judge-command judges in place of --backend {self.backend}",
                hint="leave out --backend, --provider and --tf32, and unset EDGEPROOF_BACKEND",
            )
        return self.model_copy(update={"backend": COMMAND})

    def stating_lender(self, lender: Runner | None) -> EngineOptions:
        """Return the options that name what lends the gradients, where that is not the judge."""
        return self.model_copy(update={"gradient_backend": None if lender == self.judge else lender})


backend_option, provider_option, tf32_option, gradient_option = (
    field_option(EngineOptions, name) for name in ("backend", "provider", "tf32", "gradient")
)


def command_pairing(bundle: Bundle, engine: EngineOptions, state: Path | None) -> Pairing:
    """Return what opens a command's sessions; they are closed when it ends, however it does."""
    keep = click.get_current_context().with_resource
    return Pairing(
        bundle,
        engine.judge,
        engine.gradient_backend,
        engine.uses_gradient,
        tf32=engine.tf32,
        state=state,
        command=engine.judge_command,
        keep=keep,
    )

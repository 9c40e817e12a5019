"""The options that say what judges an artifact and what lends its gradient, and the sessions opened by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
from pydantic import BeforeValidator

from runtime.backends.pairing import DEFAULT_LENDER, Pairing, Runner, read_runner
from runtime.backends.providers import PROVIDERS, check_tf32
from runtime.backends.table import BACKENDS, provider_of
from runtime.errors import UsageFault
from runtime.external.session import BACKEND as COMMAND
from runtime.external.session import PROVIDER as PROCESS
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
            type=click.Choice(list(dict.fromkeys((*PROVIDERS, *EDITIONS, PROCESS)))),
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
        if self.on and self.provider:
            raise UsageFault("--on names the providers, and --provider another", hint="leave one of them out")
        if self.judge_command is not None:
            self._check_command()
        alone = self.backend if self.judge_command is None else COMMAND
        backend = self.on[0].backend if self.on else alone
        provider = provider_of(backend, self.on[0].provider if self.on else self.provider)
        check_tf32(provider, self.tf32)
        if self.gradient_backend and not self.uses_gradient:
            raise UsageFault("--gradient none follows no gradient that --gradient-backend lends", hint="leave one out")
        if self.gradient_backend and self.gradient_backend.backend == COMMAND:
            raise UsageFault("a command judges, and lends no gradient", hint=f"--gradient-backend {DEFAULT_LENDER}")
        return self.model_copy(update={"backend": backend, "provider": provider})

    def _check_command(self) -> None:
        """Raise `UsageFault` where a command is given, and something else judges, or several models."""
        if len(_words(self.precision or "")) > 1:
            raise UsageFault("--judge-command runs one model, and --precision names several", hint="name one")
        if self.on and not any(runner.backend == COMMAND for runner in self.on):
            raise UsageFault(
                f"--on does not name {COMMAND}, and --judge-command is given", hint=f"--on ort:cpu,{COMMAND}"
            )
        judges = self.backend in (EngineOptions.model_fields["backend"].default, COMMAND)
        if not self.on and (not judges or self.provider not in (None, PROCESS) or self.tf32):
            raise UsageFault(
                f"--judge-command judges in place of --backend {self.backend}",
                hint="leave out --backend, --provider and --tf32, and unset EDGEPROOF_BACKEND",
            )

    @property
    def several(self) -> bool:
        """Whether more than one precision or runner is asked for."""
        return len(self.on) > 1 or len(_words(self.precision or "")) > 1

    def each(self, ships: str) -> tuple[EngineOptions, ...]:
        """Return the options of every precision on every runner that is asked for; `ships` where none is."""
        precisions = dict.fromkeys(_words(self.precision)) if self.precision else (ships,)
        return tuple(self._one(runner, name) for runner in self.on or (self.judge,) for name in precisions)

    def _one(self, runner: Runner, precision: str) -> EngineOptions:
        """Return the options of one precision on one runner; a command has no gradient: what lends is named."""
        by_command = runner.backend == COMMAND
        lender = DEFAULT_LENDER if by_command and self.uses_gradient else None
        return self.model_copy(
            update={
                "on": (),
                "backend": runner.backend,
                "provider": runner.provider,
                "precision": precision,
                "judge_command": self.judge_command if by_command else None,
                "gradient_backend": self.gradient_backend or lender,
            }
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
        bundle,
        engine.judge,
        engine.gradient_backend,
        engine.uses_gradient,
        tf32=engine.tf32,
        state=state,
        command=engine.judge_command,
        keep=keep,
    )

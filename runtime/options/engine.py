"""The options that choose the judge of an artifact and the lender of its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
from pydantic import BeforeValidator

from runtime.backends.pairing import DEFAULT_LENDER, Pairing, Runner, read_runner
from runtime.backends.plugins import is_plugin, use_library
from runtime.backends.providers import check_tf32
from runtime.backends.table import BACKENDS, no_command, provider_of
from runtime.errors import UsageFault
from runtime.external import BACKEND as COMMAND
from runtime.external import PROVIDER as PROCESS
from runtime.options.record import OneOf, field_option
from runtime.records.options import Option
from runtime.spec import PARENT, Frozen, Name, ProviderName, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runtime.bundle.manifest import Manifest
    from runtime.bundle.opening import Bundle
    from runtime.session import Session


def _runner(value: Any) -> Any:
    return read_runner(value) if isinstance(value, str) else value


def _runners(value: Any) -> Any:
    """Parse a list of runners, and return each once and in order."""
    return tuple(dict.fromkeys(map(read_runner, _words(value)))) if isinstance(value, str) else value


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


class BackendType(OneOf):
    """One of the backends. If a provider is named instead, the error says how to ask for it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the backend's name."""
        owner = next((name for name, backend in BACKENDS.items() if value in backend.providers), None)
        if owner and value not in BACKENDS:
            self.fail(f"{value!r} is a provider of {owner}: use --backend {owner} --provider {value}", param, ctx)
        return super().convert(value, param, ctx)


class ProviderType(OneOf):
    """A provider of one of the backends, or a plugin of ONNX Runtime."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the provider's name."""
        return value if isinstance(value, str) and is_plugin(value) else super().convert(value, param, ctx)


class EngineOptions(Frozen):
    """The graph of a bundle to judge, the engine that judges it, and the source of the gradient."""

    precision: Annotated[
        Text | None,
        Option(
            "Graph of the bundle to judge, or several, comma-separated.  [default: the one that ships]", always=True
        ),
    ] = None
    backend: Annotated[
        Name,
        Option(
            "Engine that judges: its forward pass decides about every adversarial image. No fallback.",
            type=BackendType(list(BACKENDS)),
            always=True,
            envvar="EDGEPROOF_BACKEND",
        ),
    ] = "ort"
    provider: Annotated[
        ProviderName | None,
        Option(
            "Execution provider of ONNX Runtime, or plugin:NAME; device of OpenVINO; edition of TensorRT. "
            "No fallback.  [default: cpu; tensorrt where it is installed, else tensorrt-rtx]",
            type=ProviderType(
                [*dict.fromkeys(name for each in BACKENDS.values() for name in each.providers), "plugin:NAME"]
            ),
            always=True,
        ),
    ] = None
    on: Annotated[
        tuple[Runner, ...],
        BeforeValidator(_runners),
        Option(
            "Judge on each of these engines, as ort:cpu,tensorrt (`edgeproof targets` lists them), and compare. The "
            "exit code is that of the first engine, in the precision that ships, else in the first one asked for.",
            write=lambda runners: ",".join(map(str, runners)),
        ),
    ] = ()
    provider_library: Annotated[
        Path | None,
        Option(
            "Library of plugin:NAME. It is native code and can do anything that you can.  "
            "[default: that of the package onnxruntime-ep-NAME]",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
        ),
    ] = None
    gradient: Annotated[
        Literal["auto", "none"],
        Option(
            "none: attack by Square alone, without gradients; weak evidence.",
            always=True,
        ),
    ] = "auto"
    gradient_backend: Annotated[
        Runner | None,
        BeforeValidator(_runner),
        Option(
            "Engine that computes the gradient for attacks, as ort or ort:cuda. It does not judge.  "
            "[default: the judge if it runs the gradient graph, else ort:cpu]",
        ),
    ] = None
    tf32: Annotated[bool, Option("Let a GPU round the factors of float32 products to TF32. The report says so.")] = (
        False
    )
    judge_command: Annotated[
        Text | None,
        Option("Process that judges in place of --backend: it reads images on stdin and writes logits to stdout."),
    ] = None

    @property
    def uses_gradient(self) -> bool:
        """Whether attacks may follow a gradient."""
        return self.gradient != "none"

    @property
    def judge(self) -> Runner:
        """The judge; known only after `with_provider`."""
        assert self.provider is not None
        return Runner(self.backend, self.provider)

    def with_provider(self) -> EngineOptions:
        """Return the options with the judge's backend and provider filled in.

        Raises:
            UsageFault: the backend has no such provider; TF32 is allowed without a GPU; a lender is named but no attack
                follows a gradient; a command should lend; or a command and another judge are both given.

        """
        if self.on and self.provider:
            raise UsageFault("--on already names the providers", hint="leave one of them out")
        if self.judge_command is not None:
            self._check_command()
        alone = self.backend if self.judge_command is None else COMMAND
        backend = self.on[0].backend if self.on else alone
        provider = provider_of(backend, self.on[0].provider if self.on else self.provider)
        for judge in (provider, *(runner.provider for runner in self.on)):
            check_tf32(judge, self.tf32)
        if self.gradient_backend and not self.uses_gradient:
            raise UsageFault(
                "--gradient none uses no gradient, so --gradient-backend has no effect", hint="leave one of them out"
            )
        if self.gradient_backend and self.gradient_backend.backend == COMMAND:
            raise UsageFault(
                "a command can judge, but it computes no gradient", hint=f"--gradient-backend {DEFAULT_LENDER}"
            )
        if self.judge_command is None and COMMAND in (backend, *(runner.backend for runner in self.on)):
            raise no_command()
        lender = (self.gradient_backend,) if self.gradient_backend else ()
        choose_library(self.provider_library, (provider, *(runner.provider for runner in (*self.on, *lender))))
        return self.model_copy(update={"backend": backend, "provider": provider})

    def _check_command(self) -> None:
        """Raise `UsageFault` if another judge or several precisions are given beside the command."""
        if len(_words(self.precision or "")) > 1:
            raise UsageFault("--judge-command runs one model, but --precision names several", hint="name one precision")
        if self.on and not any(runner.backend == COMMAND for runner in self.on):
            raise UsageFault(
                f"--judge-command is given, but --on does not name {COMMAND}", hint=f"--on ort:cpu,{COMMAND}"
            )
        judges = self.backend in (EngineOptions.model_fields["backend"].default, COMMAND)
        if not self.on and (not judges or self.provider not in (None, PROCESS) or self.tf32):
            raise UsageFault(
                f"--judge-command judges in place of --backend {self.backend}",
                hint="leave out --backend, --provider and --tf32, and unset EDGEPROOF_BACKEND",
            )

    @property
    def several(self) -> bool:
        """Whether more than one precision or runner is given."""
        return len(self.on) > 1 or len(_words(self.precision or "")) > 1

    def each(self, ships: str) -> tuple[EngineOptions, ...]:
        """Return the options of each requested precision, by default `ships`, on each requested runner."""
        precisions = dict.fromkeys(_words(self.precision)) if self.precision else (ships,)
        return tuple(self._one(runner, name) for runner in self.on or (self.judge,) for name in precisions)

    def _one(self, runner: Runner, precision: str) -> EngineOptions:
        """Return the options of one precision on one runner. A command, which has no gradient, gets a lender."""
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

    def judges_in_parent(self, manifest: Manifest) -> bool:
        """Return whether the judge can also judge PARENT, the baseline of a drop; a command runs only one model."""
        precision = self.precision or manifest.ships
        return PARENT in manifest.graphs and precision != PARENT and self.judge_command is None

    def stating_lender(self, lender: Runner | None) -> EngineOptions:
        """Return the options with the lender named, unless it is the judge."""
        return self.model_copy(update={"gradient_backend": None if lender == self.judge else lender})


def choose_library(library: Path | None, providers: Iterable[str]) -> None:
    """Use the library that --provider-library names; raise `UsageFault` if no provider is a plugin."""
    if library is None:
        return
    if not any(map(is_plugin, providers)):
        raise UsageFault("--provider-library is only for a plugin", hint="--provider plugin:NAME")
    use_library(library)


backend_option, provider_option, library_option, tf32_option, gradient_option, command_option = (
    field_option(EngineOptions, name)
    for name in ("backend", "provider", "provider_library", "tf32", "gradient", "judge_command")
)
measure_on_option = click.option(
    "--on",
    callback=lambda ctx, param, value: _runners(value or ()),
    help="Measure on each of these engines, as ort:cpu,tensorrt (`edgeproof targets` lists them).",
)


def pairing_of(
    bundle: Bundle, engine: EngineOptions, state: Path | None, keep: Callable[[Session], Session]
) -> Pairing:
    """Return the pairing that opens the sessions. `keep` is called with each, to register it for closing."""
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

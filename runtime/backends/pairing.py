"""Which runner judges a bundle's precisions, and which lends their gradients: opened, and paired where they are two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.backends.table import check_precision, open_session, provider_of
from runtime.errors import MissingEnvironment
from runtime.session import BorrowedGradient
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.bundle.opening import Bundle
    from runtime.session import Session


@dataclass(frozen=True)
class Runner:
    """What runs a graph: a backend, and its provider."""

    backend: str
    provider: str

    def __str__(self) -> str:
        """Return how it is asked for: ort:cpu."""
        return f"{self.backend}:{self.provider}"


def read_runner(text: str) -> Runner:
    """Read BACKEND or BACKEND:PROVIDER, as ort or ort:cuda.

    Raises:
        UsageFault: there is no such backend, or it has no such provider.

    """
    backend, _, provider = text.partition(":")
    return Runner(backend, provider_of(backend, provider or None))


DEFAULT_LENDER = Runner("ort", "cpu")
"""Lends the gradient where the judge runs no gradient graph and nothing else is asked for."""


@dataclass
class Pairing:
    """Opens precisions of one bundle: on what judges, and on what lends their gradients.

    All precisions borrow from the same runner, which the first one settles where nobody names it.

    Args:
        bundle: every byte of it checked.
        judge: decides every point.
        lender: lends the gradients; None for the judge where it runs the gradient graph, else DEFAULT_LENDER.
        gradient: whether attacks follow any.
        tf32: let a GPU that judges round the factors of float32 products to TF32.
        state: where engines are kept.
        command: what is started to judge; None where an engine of ours does.
        keep: is handed every session, to close it, and returns it.

    """

    bundle: Bundle
    judge: Runner
    lender: Runner | None = None
    gradient: bool = True
    tf32: bool = False
    state: Path | None = None
    command: str | None = None
    keep: Callable[[Session], Session] = lambda session: session
    _opened: dict[Any, Session] = field(default_factory=dict)

    def session(self, precision: str) -> Session:
        """Return what judges a precision, with the gradient that attacks on it follow.

        Raises:
            BadBundle: the bundle has no such precision.
            BadModel: a graph cannot be loaded.
            MissingEnvironment: a backend or provider does not work here, or what is to lend runs no gradient graph.

        """
        check_precision(self.bundle, precision)
        if not self.gradient or self.bundle.manifest.graphs[precision].gradient is None:
            return self._open(precision, self.judge, gradient=False)
        lending = self.lending(precision)
        if self.lender == self.judge:
            return lending
        return BorrowedGradient(self._open(precision, self.judge, gradient=False), lending)

    def lending(self, precision: str) -> Session:
        """Return what lends the gradient of a precision that has a gradient graph; raises as `session` does."""
        settled = self.lender is not None
        lender = self.lender or self.judge
        session = self._open(precision, lender, gradient=True)
        if session.card().differentiable:
            self.lender = lender
            return session
        if settled:
            raise MissingEnvironment(
                f"{lender} cannot run the gradient graph of {precision}",
                hint=f"use --gradient-backend {DEFAULT_LENDER}",
            )
        self._opened[precision, lender, False] = session
        self.lender = DEFAULT_LENDER
        log.info(f"{self.judge} judges but cannot run gradient graphs; attacks use the gradient of {self.lender}")
        return self.lending(precision)

    def witness(self, precision: str) -> Session | None:
        """Return what answers a precision by the bundle's own graph where a process judges; None where an engine does.

        Raises:
            BadModel: the graph cannot be loaded.

        """
        if self.command is None:
            return None
        lent = (precision, DEFAULT_LENDER, True)
        return self._open(precision, DEFAULT_LENDER, gradient=lent in self._opened)

    def _open(self, precision: str, runner: Runner, *, gradient: bool) -> Session:
        key = (precision, runner, gradient)
        if key not in self._opened:
            session = open_session(
                self.bundle,
                precision=precision,
                backend=runner.backend,
                provider=runner.provider,
                gradient=gradient,
                tf32=self.tf32 and runner == self.judge,
                state=self.state,
                command=self.command if runner == self.judge else None,
            )
            self._opened[key] = self.keep(session)
        return self._opened[key]

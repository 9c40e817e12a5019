"""Opens the runner that judges a bundle's precisions and the runner that lends their gradients, and pairs them."""

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
    """A backend and its provider, which together run a graph."""

    backend: str
    provider: str

    def __str__(self) -> str:
        """Return it as the command line writes it: ort:cpu."""
        return f"{self.backend}:{self.provider}"


def read_runner(text: str) -> Runner:
    """Parse BACKEND or BACKEND:PROVIDER, such as ort or ort:cuda.

    Raises:
        UsageFault: there is no such backend, or it has no such provider.

    """
    backend, _, provider = text.partition(":")
    return Runner(backend, provider_of(backend, provider or None))


DEFAULT_LENDER = Runner("ort", "cpu")
"""The lender if the judge cannot run gradient graphs and no other lender is requested."""


@dataclass
class Pairing:
    """Opens precisions of one bundle on the judge and on the lender of gradients.

    All precisions have the same lender. Unless it is requested, the first precision to be opened decides it.

    Args:
        bundle: the bundle, whose files have all been checked.
        judge: decides every point.
        lender: lends the gradients. None: the judge if it can run the gradient graph, else DEFAULT_LENDER.
        gradient: whether any attack follows a gradient.
        tf32: let a judge on a GPU round the factors of float32 products to TF32.
        state: the directory in which engines are kept.
        command: the command that starts a judge process; None if an engine judges.
        keep: is called with every session, to register it for closing, and returns it.

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
        """Return the session that judges a precision and gives the gradient for attacks on it.

        Raises:
            BadBundle: the bundle has no such precision.
            BadModel: a graph cannot be loaded.
            MissingEnvironment: a backend or provider does not work here, or the lender cannot run the gradient graph.

        """
        check_precision(self.bundle, precision)
        if not self.gradient or self.bundle.manifest.graphs[precision].gradient is None:
            return self._open(precision, self.judge, gradient=False)
        lending = self.lending(precision)
        if self.lender == self.judge:
            return lending
        return BorrowedGradient(self._open(precision, self.judge, gradient=False), lending)

    def lending(self, precision: str) -> Session:
        """Return the lender's session of a precision that has a gradient graph; raises as `session` does."""
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
        """Return a session of the bundle's own graph, to compare with a judge process; None if an engine judges.

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

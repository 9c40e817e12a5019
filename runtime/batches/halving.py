"""A session that asks for smaller batches after memory ran out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from array_api_compat import array_namespace

from runtime.batches.around import Around
from runtime.errors import OutOfMemory
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.session import LossSpec, Session

Answer = TypeVar("Answer")


class BatchHalving(Around):
    """A session that halves batches until they fit into memory.

    Args:
        session: raises `OutOfMemory` or `MemoryError` if a batch does not fit, and can then be asked again. Its answer
            to an image must not depend on the other images of the batch.

    Attributes:
        largest: the most images in a batch; None as long as every batch has fitted.

    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.largest: int | None = None

    def logits(self, x: Any) -> Any:
        """Return the logits of the artifact: float32 [B, K].

        Raises:
            OutOfMemory: a single image does not fit.

        """
        return _joined(self._fitted(x.shape[0], lambda rows: self.session.logits(x[rows, ...])))

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return (logits, value, gradient); raises as `logits` does."""
        parts = self._fitted(x.shape[0], lambda rows: self.session.loss_gradient(x[rows, ...], loss.rows(rows)))
        z, value, gradient = (_joined(list(part)) for part in zip(*parts, strict=True))
        return z, value, gradient

    def _fitted(self, n: int, ask: Callable[[slice], Answer]) -> list[Answer]:
        while True:
            size = min(n, self.largest or n)
            try:
                return [ask(slice(start, min(start + size, n))) for start in range(0, n, size)]
            except (OutOfMemory, MemoryError) as error:
                if size == 1:
                    raise OutOfMemory(
                        f"a single image does not fit in memory: {error}",
                        hint="stop other programs, or give the container more memory",
                    ) from None
                self.largest = size // 2
            log.info(f"memory ran out with batches of {size}; continuing with {self.largest}, which changes no verdict")


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else array_namespace(parts[0]).concat(parts)

"""A session that wraps another: the base of classes that change only how batches are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.session import Session

if TYPE_CHECKING:
    from runtime.session import SessionCard


class Around(Session):
    """A session that wraps another. It passes on `card`, `confirm` and `close`, so that no doubt about answers is lost.

    Args:
        session: the wrapped session.

    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def card(self) -> SessionCard:
        """Return the card of the wrapped session."""
        return self.session.card()

    def confirm(self) -> None:
        """Check the answers of the wrapped session."""
        self.session.confirm()

    def close(self) -> None:
        """Close the wrapped session."""
        self.session.close()

"""A session around another: what changes how it is asked hands on everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.session import Session

if TYPE_CHECKING:
    from runtime.session import SessionCard


class Around(Session):
    """A session that asks another; a doubt about what that answered is never lost on the way.

    Args:
        session: the one behind.

    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def card(self) -> SessionCard:
        """Return the card of the session behind."""
        return self.session.card()

    def confirm(self) -> None:
        """Confirm what the session behind answered."""
        self.session.confirm()

    def close(self) -> None:
        """Close the session behind."""
        self.session.close()

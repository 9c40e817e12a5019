"""A graph that may go into a bundle, and what is made of it: its gradient graph, and one session over both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from export.gradient import gradient_graph, in_operations_with_rules
from export.graph.passes import to_bytes
from runtime.backends.ort import OrtSession

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.graph.passes import Prepared

CALLED = "candidate"
"""What the session's card calls every candidate; how it is attacked, the facts of its graphs decide."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A classifier in one precision. Gradient graph and session are made when they are first asked for, and kept.

    Args:
        forward: the classifier.
        differentiable: whether a gradient graph is wanted.

    """

    forward: Prepared
    differentiable: bool = True

    @cached_property
    def differentiated(self) -> Prepared:
        """The classifier in operations that have a derivative: itself, where all of its own have."""
        return in_operations_with_rules(self.forward)

    @cached_property
    def gradient(self) -> ModelProto | None:
        """The graph of its input gradient; None where none is wanted.

        Raises:
            BadModel: see `export.gradient.gradient_graph`.

        """
        return gradient_graph(self.differentiated) if self.differentiable else None

    @cached_property
    def session(self) -> OrtSession:
        """Both graphs in ONNX Runtime, which runs pieces of a batch side by side."""
        gradient = None if self.gradient is None else to_bytes(self.gradient)
        return OrtSession(to_bytes(self.forward.model), gradient, precision=CALLED)

    def close(self) -> None:
        """Let go of the session; whoever asks for it again opens another."""
        session: OrtSession | None = vars(self).pop("session", None)
        if session is not None:
            session.close()

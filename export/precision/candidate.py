"""A graph that may go into a bundle, with its gradient graph and one session over both."""

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
    """A classifier in one precision. Gradient graph and session are made at their first use, and kept.

    Args:
        forward: the classifier.
        differentiable: whether to make a gradient graph.

    """

    forward: Prepared
    differentiable: bool = True

    @cached_property
    def differentiated(self) -> Prepared:
        """The classifier in operations with a derivative; itself, if all of its operations have one."""
        return in_operations_with_rules(self.forward)

    @cached_property
    def gradient(self) -> ModelProto | None:
        """The graph of its input gradient; None without `differentiable`.

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
        """Close the session; the next use opens another."""
        session: OrtSession | None = vars(self).pop("session", None)
        if session is not None:
            session.close()

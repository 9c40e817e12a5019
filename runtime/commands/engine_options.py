"""The options that say which engine runs an artifact, and the session that a command opens by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from runtime.backends.providers import PROVIDERS
from runtime.backends.table import BACKENDS, open_session

if TYPE_CHECKING:
    from runtime.bundle.opening import Bundle
    from runtime.session import Session

backend_option = click.option(
    "--backend",
    type=click.Choice(list(BACKENDS)),
    default="ort",
    envvar="EDGEPROOF_BACKEND",
    show_default=True,
    show_envvar=True,
    help="The engine that runs it; never another in its place.",
)
provider_option = click.option(
    "--provider",
    type=click.Choice(list(PROVIDERS)),
    help="Execution provider of ONNX Runtime; never another in its place.  [default: cpu]",
)
tf32_option = click.option(
    "--tf32", is_flag=True, help="Let a GPU round the factors of float32 products to TF32; recorded."
)


def command_session(bundle: Bundle, **how: Any) -> Session:
    """Open a session, as `open_session` does; it is closed when the command ends, however it does."""
    return click.get_current_context().with_resource(open_session(bundle, **how))

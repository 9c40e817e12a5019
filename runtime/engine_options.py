"""The options that say which engine runs an artifact."""

from __future__ import annotations

import click

from runtime.backends import BACKENDS
from runtime.session_ort import PROVIDERS

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
    default="cpu",
    show_default=True,
    help="Execution provider of ONNX Runtime.",
)

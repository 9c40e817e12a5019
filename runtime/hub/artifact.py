"""The command-line type of an artifact: a path, or hf://ORG/NAME, which is fetched."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from runtime.hub.place import SCHEME, HubPlace
from runtime.terminal.log import log


class ArtifactType(click.Path):
    """An existing path, or a place on the Hub."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or the place."""
        if not isinstance(value, str) or not value.startswith(SCHEME):
            return super().convert(value, param, ctx)
        try:
            return HubPlace.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def on_disk(artifact: Path | HubPlace) -> tuple[Path, str | None]:
    """Return an artifact's path, and None or the place and commit on the Hub from which it was fetched.

    A fetched artifact is removed when the command ends.

    Raises:
        MissingEnvironment: the extra is not installed, or the Hub cannot be reached.
        EdgeproofError: see `runtime.hub.transfer.fetch`.

    """
    from runtime.hub import transfer

    if isinstance(artifact, Path):
        return artifact, None
    scratch = click.get_current_context().with_resource(tempfile.TemporaryDirectory(prefix="edgeproof-"))
    bundle = Path(scratch) / artifact.repository
    fetched = transfer.fetch(artifact, bundle)
    log.info(f"{artifact} is {fetched}")
    return bundle, str(fetched)

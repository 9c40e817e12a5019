"""`edgeproof push`, and what takes hf://ORG/NAME where a bundle is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.bundle.opening import open_bundle
from runtime.errors import UsageFault
from runtime.hub import transfer
from runtime.hub.place import SCHEME, HubPlace
from runtime.options.trust import trust_option
from runtime.terminal.log import log

if TYPE_CHECKING:
    from runtime.bundle.signing import Trust


def _place(ctx: click.Context, param: click.Parameter, value: str) -> HubPlace:
    try:
        return HubPlace.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class ArtifactType(click.Path):
    """A path that exists, or a place on the Hub."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or the place."""
        if not isinstance(value, str) or not value.startswith(SCHEME):
            return super().convert(value, param, ctx)
        try:
            return HubPlace.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def on_disk(artifact: Path | HubPlace) -> tuple[Path, str | None]:
    """Return where an artifact lies and, of one that was fetched until the command ends, where from, with its commit.

    Raises:
        MissingEnvironment: the extra is not installed, or the Hub cannot be reached.
        EdgeproofError: see `runtime.hub.transfer.fetch`.

    """
    if isinstance(artifact, Path):
        return artifact, None
    scratch = click.get_current_context().with_resource(tempfile.TemporaryDirectory(prefix="edgeproof-"))
    bundle = Path(scratch) / artifact.repository
    fetched = transfer.fetch(artifact, bundle)
    log.info(f"{artifact} is {fetched}")
    return bundle, str(fetched)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("place", metavar="hf://ORG/NAME", callback=_place)
@trust_option
@click.option("--private", is_flag=True, help="Make the repository private, where it is new.")
def push(bundle: Path, place: HubPlace, trust: Trust | None, private: bool) -> None:
    """Put a bundle on the Hugging Face Hub, in one commit.

    Every digest is checked before. huggingface_hub takes the token from HF_TOKEN or from `hf auth login`.
    """
    if place.revision and len(place.revision) == len("0" * 40) and not place.revision.strip("0123456789abcdef"):
        raise UsageFault(f"{place} is a commit, to which nothing is added", hint="name a branch, or none")
    click.echo(transfer.push(open_bundle(bundle, trust), place, private=private))

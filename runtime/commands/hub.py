"""`edgeproof push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.bundle.opening import open_bundle
from runtime.errors import UsageFault
from runtime.hub import transfer
from runtime.hub.place import HubPlace
from runtime.options.trust import trust_option

if TYPE_CHECKING:
    from runtime.bundle.signing import Trust


def _place(ctx: click.Context, param: click.Parameter, value: str) -> HubPlace:
    try:
        return HubPlace.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("place", metavar="hf://ORG/NAME", callback=_place)
@trust_option
@click.option("--private", is_flag=True, help="If the repository is new, make it private.")
def push(bundle: Path, place: HubPlace, trust: Trust | None, private: bool) -> None:
    """Upload a bundle to the Hugging Face Hub, in one commit.

    Every digest is checked before. huggingface_hub takes the token from HF_TOKEN or from `hf auth login`.
    """
    if place.revision and len(place.revision) == len("0" * 40) and not place.revision.strip("0123456789abcdef"):
        raise UsageFault(
            f"{place} is a commit, and nothing can be added to it", hint="name a branch, or leave the revision out"
        )
    click.echo(transfer.push(open_bundle(bundle, trust), place, private=private))

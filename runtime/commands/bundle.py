"""The commands around a bundle and its signature: key, sign, inspect, install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.attestation.description import described
from runtime.attestation.policy import require
from runtime.bundle.install import CURRENT
from runtime.bundle.install import install as put_in_place
from runtime.bundle.manifest import SIGNATURE, Manifest
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.sign_in_place import sign_in_place
from runtime.bundle.signing import PRIVATE, PUBLIC, Trust, new_key
from runtime.errors import UsageFault
from runtime.options.record import NewDirectory
from runtime.options.trust import (
    allow_rollback_option,
    allow_unsigned_option,
    attestation_option,
    needed_key_option,
    state_option,
    trust_before_option,
    trust_option,
    written,
)
from runtime.words import file_size, percent, radius

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

bundle_argument = click.argument("bundle", type=click.Path(exists=True, path_type=Path))


@click.group()
def key() -> None:
    """Make a key pair for signing bundles."""


@key.command(short_help="Make a key pair.")
@click.option("--out", type=NewDirectory(), required=True, help="New directory for private.pem and public.pem.")
def new(out: Path) -> None:
    """Make a key pair: private.pem signs (keep it secret), public.pem goes to the devices."""
    fingerprint = new_key(out)
    click.echo(f"key {fingerprint}")
    click.echo(f"{out / PRIVATE}: keep it secret; `edgeproof sign --key` signs with it")
    click.echo(f"{out / PUBLIC}: for the devices; `edgeproof verify --trust` checks with it")


@click.command()
@bundle_argument
@needed_key_option
@trust_before_option
def sign(bundle: Path, key: EllipticCurvePrivateKey, trust: Trust | None) -> None:
    """Sign an existing bundle in place.

    Prints what the bundle claims, because the signature vouches for it. The bundle must be complete, and its model card
    must match its manifest. Only signature.json is written; version and manifest stay the same. If another key has
    signed the bundle, --trust must name that key: its signature is checked before it is replaced.
    """
    for line in _claimed(sign_in_place(bundle, key, trust)):
        click.echo(line)
    click.echo(written(bundle, key))


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path), required=False)
@attestation_option
@trust_option
def inspect(bundle: Path | None, attestation: Path | None, trust: Trust | None) -> None:
    """Show what is in a bundle, and check every byte.

    --attestation also shows a signed verdict, and checks that it is about this bundle; it works without BUNDLE too.
    With --trust, bundle and verdict must each be signed with one of its keys.
    """
    opened = open_bundle(bundle, trust) if bundle else None
    if opened:
        _show(opened)
    if attestation:
        for line in described(attestation, trust, opened):
            click.echo(line)
    if not (opened or attestation):
        raise UsageFault("there is nothing to inspect", hint="name a BUNDLE, or --attestation FILE")


def _show(opened: Bundle) -> None:
    for line in _described(opened.manifest):
        click.echo(line)
    click.echo(f"intact: all {len(opened.manifest.files)} files have the size and digest that the manifest lists")
    click.echo(authenticity(opened))


@click.command()
@bundle_argument
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory of this model on the device.",
)
@trust_option
@state_option
@allow_rollback_option
@allow_unsigned_option
@attestation_option
@click.option(
    "--require-attestation",
    "policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="POLICY",
    help="Install the bundle only with an --attestation that meets this policy (TOML).",
)
def install(
    bundle: Path,
    to: Path,
    trust: Trust | None,
    state: Path | None,
    allow_rollback: bool,
    allow_unsigned: bool,
    attestation: Path | None,
    policy: Path | None,
) -> None:
    """Install a bundle on a device; keep the previous one.

    The versions that were accepted are recorded in the directory --state, by default in --to.
    """
    if (attestation is None) != (policy is None):
        raise UsageFault(
            "--attestation and --require-attestation need each other",
            hint="give both: the first is the signed verdict, the second is the policy that it must meet",
        )
    opened = open_bundle(bundle, trust)
    if attestation and policy:
        require(attestation, policy, opened)
    target = put_in_place(opened, to, state=state or to, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned)
    click.echo(f"{to / CURRENT} is {target.name}, {authenticity(opened)}")


def authenticity(bundle: Bundle) -> str:
    """Return in words whether the signature was checked. A bundle whose signature is not valid is never opened."""
    if bundle.signed_by:
        return f"authenticated: signed with key {bundle.signed_by}"
    return "not authenticated: " + ("no --trust given" if SIGNATURE in bundle.contents else "it is not signed")


def _claimed(manifest: Manifest) -> Iterator[str]:
    threat, gate = manifest.threat_model, manifest.gate
    yield f"{manifest.name} version {manifest.version}, made {manifest.created}"
    yield f"threat model: {threat.norm}, eps {radius(threat.eps)}"
    asked = [f"{name.replace('_', '-')} {percent(value)}" for name, value in gate if value is not None]
    yield f"gate: {', '.join(asked) or 'none'}"
    yield f"evaluation: {manifest.evaluation.n} images of {manifest.evaluation.name}"


def _described(manifest: Manifest) -> Iterator[str]:
    image = manifest.input
    yield from _claimed(manifest)
    yield f"input: {image.channels} x {image.height} x {image.width}; {len(manifest.classes)} classes"
    for name, graph in manifest.graphs.items():
        size, gradient = file_size(manifest.files[graph.forward].size), "with" if graph.gradient else "without"
        ships = ", ships" if name == manifest.ships else ""
        yield f"{name}: opset {graph.opset}, {size}, {gradient} gradient graph{ships}"
    if manifest.reference:
        reference = manifest.reference
        reached = f"clean {percent(reference.clean)}, PGD {percent(reference.pgd)}"
        yield f"in training: {reached} of {reference.n} hold-out images"
    if manifest.provenance:
        origin = manifest.provenance
        yield f"recipe: sha256 {origin.recipe_sha256}; teacher: {origin.teacher_sha256 or 'none'}"
        also = f", and on {origin.extra_data.n} of {origin.extra_data.name}" if origin.extra_data else ""
        if origin.start_sha256:
            yield f"trained on through int8 from the checkpoint with sha256 {origin.start_sha256}"
        yield f"trained on {origin.training_data.n} images of {origin.training_data.name}{also}"
        yield f"made with {', '.join(f'{name} {version}' for name, version in sorted(origin.software.items()))}"
    if manifest.packed:
        packed = manifest.packed
        yield f"packed from {packed.file}, opset {packed.opset}, sha256 {packed.sha256}"
        yield from (f"  {change}" for change in packed.changes)
    for name, entry in sorted(manifest.files.items()):
        yield f"  {entry.sha256}  {entry.size:>10}  {name}"

"""The commands that need no training framework."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.backends import BACKENDS, open_session
from runtime.bundle import EVALUATION, OTHER_MAKE, Bundle, open_bundle
from runtime.errors import BadBundle, BadData
from runtime.images import ImageSet, find_images, read_npz
from runtime.options import Asked, attack_options, judge
from runtime.session_ort import PROVIDERS
from runtime.trust_options import allow_rollback_option, remembered, state_option, trust_option
from runtime.verify import Subject

if TYPE_CHECKING:
    from runtime.signing import Trust


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--precision", help="Which graph of the bundle.  [default: the one that ships]")
@click.option(
    "--backend", type=click.Choice(list(BACKENDS)), default="ort", envvar="EDGEPROOF_BACKEND",
    show_default=True, show_envvar=True, help="The engine that runs it; never another in its place.",
)  # fmt: skip
@click.option(
    "--provider",
    type=click.Choice(list(PROVIDERS)),
    default="cpu",
    show_default=True,
    help="Execution provider of ONNX Runtime.",
)
@trust_option
@state_option
@allow_rollback_option
@attack_options
def verify(
    bundle: Path,
    precision: str | None,
    backend: str,
    provider: str,
    trust: Trust | None,
    state: Path | None,
    allow_rollback: bool,
    **choices: Any,
) -> None:
    """Attack the artifact that ships, on this machine, and judge it."""
    asked = Asked(**choices)
    opened = open_bundle(bundle, trust)
    manifest = opened.manifest
    precision = precision or manifest.ships
    session = open_session(opened, precision=precision, backend=backend, provider=provider)
    engine = ["--precision", precision, "--backend", backend, "--provider", provider]
    subject = Subject(
        session=session,
        name=manifest.name,
        classes=manifest.classes,
        shape=(manifest.input.channels, manifest.input.height, manifest.input.width),
        images=_images(opened, asked),
        command=f"edgeproof verify BUNDLE {shlex.join(engine)}",
        bundle_version=manifest.version,
        authenticated=opened.signed_by is not None,
    )
    with remembered(opened, state, allow_rollback=allow_rollback):
        judge(subject, asked, threat_model=manifest.threat_model, gate=manifest.gate)


def _images(bundle: Bundle, asked: Asked) -> ImageSet:
    manifest = bundle.manifest
    if asked.data is None:
        return evaluation_images(bundle)
    return find_images(
        asked.data,
        root=asked.data_root,
        layout=asked.layout,
        channels=manifest.input.channels,
        classes=manifest.classes,
    )


def evaluation_images(bundle: Bundle) -> ImageSet:
    """Return the images inside a bundle.

    Raises:
        BadBundle: they cannot be read, or are not those that the manifest records.

    """
    record, path = bundle.manifest.evaluation, bundle.path / EVALUATION
    try:
        images = read_npz(bundle.read(EVALUATION), name=record.name, layout="nchw")
    except BadData as error:
        raise BadBundle(f"{path}: {error.message}", hint=OTHER_MAKE) from None
    if (len(images), images.sha256) != (record.n, record.sha256):
        raise BadBundle(f"{path}: its images are not the {record.n} that the manifest records", hint=OTHER_MAKE)
    return images

"""The commands that need no training framework."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.backends.table import provider_of
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import Bundle, open_bundle
from runtime.commands.attack_options import NO_GRADIENT, Asked, NewDirectory, attack_options
from runtime.commands.engine_options import backend_option, command_session, provider_option, tf32_option
from runtime.commands.judging import fresh_directory, judge, show, write_all
from runtime.commands.preparers import Wanted, gradient_option, mean_option, prepare, std_option
from runtime.commands.trust_options import allow_rollback_option, enforce_no_rollback, state_option, trust_option
from runtime.errors import UsageFault
from runtime.files import new_directory
from runtime.images.find import find_images
from runtime.spec import PARENT, ThreatModel
from runtime.verdict.case import Run
from runtime.verdict.run_directory import finish_run, read_part
from runtime.verdict.shards import merge as merge_parts
from runtime.verdict.subject import Subject

if TYPE_CHECKING:
    from runtime.bundle.signing import Trust
    from runtime.images.image_set import ImageSet
    from runtime.session import Session


@click.command()
@click.argument("artifact", metavar="BUNDLE|MODEL.onnx", type=click.Path(exists=True, path_type=Path))
@click.option("--precision", help="Which graph of the bundle.  [default: the one that ships]")
@backend_option
@provider_option
@tf32_option
@trust_option
@state_option
@allow_rollback_option
@mean_option
@std_option
@gradient_option
@attack_options
def verify(
    artifact: Path,
    precision: str | None,
    backend: str,
    provider: str | None,
    tf32: bool,
    trust: Trust | None,
    state: Path | None,
    allow_rollback: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    gradient: str,
    **choices: Any,
) -> None:
    """Attack the artifact that ships, on this machine, and judge it.

    An ONNX file is packed into a bundle first, in a temporary place; it needs --data.
    """
    asked = Asked(**choices)
    opened = _opened(artifact, asked, mean, std, gradient != NO_GRADIENT, trust)
    manifest = opened.manifest
    precision = precision or manifest.ships
    provider = provider_of(backend, provider)
    # Before an engine takes memory: the images' file is let go.
    images = evaluation_images(opened) if artifact.is_file() else _images(opened, asked)
    opening = partial(
        command_session,
        opened,
        backend=backend,
        provider=provider,
        gradient=gradient != NO_GRADIENT,
        tf32=tf32,
        state=state,
    )
    session = opening(precision=precision)
    choice = ["--backend", backend, "--provider", provider, "--gradient", gradient, *(["--tf32"] if tf32 else [])]
    engine = ["--precision", precision, *choice]
    for option, values in (("--mean", mean), ("--std", std)):
        engine += [option, ",".join(map(str, values))] if values else []
    subject = Subject(
        session=session,
        name=manifest.name,
        classes=manifest.classes,
        shape=(manifest.input.channels, manifest.input.height, manifest.input.width),
        images=images,
        command=f"edgeproof verify {'MODEL.onnx' if artifact.is_file() else 'BUNDLE'} {shlex.join(engine)}",
        bundle_version=manifest.version,
        authenticated=opened.signed_by is not None,
    )
    if PARENT in manifest.graphs and precision != PARENT:
        lends = gradient != NO_GRADIENT and manifest.graphs[PARENT].gradient is not None
        lender = cache(partial(opening, precision=PARENT))
        subject = replace(
            subject,
            parent=lambda: _parent(subject, lender(), choice),
            lender=lender() if lends else None,
        )
    # A model file has no version to remember.
    with enforce_no_rollback(opened, None if artifact.is_file() else state, allow_rollback=allow_rollback):
        judge(subject, asked, threat_model=manifest.threat_model, gate=manifest.gate)


def _parent(subject: Subject, session: Session, choice: list[str]) -> Subject:
    """Return the same subject in the precision that drops are measured from."""
    command = f"edgeproof verify BUNDLE {shlex.join(['--precision', PARENT, *choice])}"
    return replace(subject, session=session, command=command, parent=None, lender=None)


@click.command()
@click.argument(
    "shards", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR..."
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the summary.")
@click.option(
    "--out", type=NewDirectory(), help="Run directory, which must be new or empty.  [default: one in reports/]"
)
def merge(shards: tuple[Path, ...], as_json: bool, out: Path | None) -> None:
    """Put the shards of one run together, and judge it as one run would be."""
    run = Run(*merge_parts([read_part(directory) for directory in shards]))
    artifact = run.report.artifact
    out = out or fresh_directory(artifact.name, artifact.precision)
    with new_directory(out) as directory:
        finish_run(directory, run, formats=write_all)
    show(run.report, out, as_json=as_json)


def _opened(
    artifact: Path,
    asked: Asked,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    gradient: bool,
    trust: Trust | None,
) -> Bundle:
    """Open a bundle, or pack a model into one that lives in memory alone."""
    if artifact.is_dir():
        if mean or std:
            raise UsageFault(
                "--mean and --std are of a model; a bundle carries its normalisation", hint="leave them out"
            )
        return open_bundle(artifact, trust)
    if trust:
        raise UsageFault(f"{artifact} is a model file, which has no signature", hint="--trust is for a bundle")
    if asked.data is None:
        raise UsageFault(f"{artifact} brings no images", hint="--data SET, an .npz with x and y or an image folder")
    if asked.max_drop is not None and asked.against is None:
        raise UsageFault(
            f"--max-drop has nothing to compare {artifact} with",
            hint="--against DIR, the --out of a verify that has finished",
        )
    wanted = Wanted(asked.data, asked.layout, asked.data_root, mean, std, gradient)
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as place:
        bundle = Path(place) / "bundle"
        prepare(artifact, bundle, wanted, ThreatModel() if asked.eps is None else ThreatModel(eps=asked.eps))
        opened = open_bundle(bundle)
    return Bundle(artifact, opened.manifest, opened.contents)  # errors name what the user gave


def _images(bundle: Bundle, asked: Asked) -> ImageSet:
    manifest = bundle.manifest
    if asked.data is None:
        return evaluation_images(bundle)
    return find_images(
        asked.data,
        root=asked.data_root,
        layout=asked.layout,
        channels=manifest.input.channels,
        preprocessing=manifest.preprocessing,
        classes=manifest.classes,
    )

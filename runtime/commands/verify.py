"""The commands that need no training framework."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.backends.table import BACKENDS, check_precision
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.rollback import check_acceptable
from runtime.checks.clean import least_expected
from runtime.commands.judging import (
    ReportOptions,
    RunOptions,
    check_asked,
    fresh_directory,
    judge_subject,
    show,
    write_all,
)
from runtime.commands.judging_each import directories_of, judge_each
from runtime.errors import UsageFault
from runtime.files import new_directory
from runtime.images.find import find_images
from runtime.options.engine import EngineOptions, command_pairing
from runtime.options.groups import OF_A_VERDICT, GroupedCommand
from runtime.options.preparers import ModelOptions, Wanted, pack_first
from runtime.options.record import record_options
from runtime.options.trust import (
    accept_what_passes,
    allow_rollback_option,
    allow_unsigned_option,
    state_option,
    trust_option,
)
from runtime.records.options import command_words
from runtime.spec import PARENT, Gate, ThreatModel
from runtime.verdict.case import Run
from runtime.verdict.options import VerifyOptions, check_decidable
from runtime.verdict.run_directory import finish_run, read_part
from runtime.verdict.shards import merge as merge_parts
from runtime.verdict.subject import LIBRARIES, Subject

if TYPE_CHECKING:
    from runtime.bundle.signing import Trust
    from runtime.images.image_set import ImageSet
    from runtime.session import Session


@click.command(cls=GroupedCommand, groups=OF_A_VERDICT)
@click.argument("artifact", metavar="BUNDLE|MODEL.onnx", type=click.Path(exists=True, path_type=Path))
@record_options(engine=EngineOptions)
@trust_option
@state_option
@allow_rollback_option
@allow_unsigned_option
@record_options(model=ModelOptions, options=VerifyOptions, run=RunOptions)
def verify(
    artifact: Path,
    engine: EngineOptions,
    trust: Trust | None,
    state: Path | None,
    allow_rollback: bool,
    allow_unsigned: bool,
    model: ModelOptions,
    options: VerifyOptions,
    run: RunOptions,
) -> None:
    """Attack the artifact that ships, on this machine, and judge it.

    An ONNX file is packed into a bundle first, in a temporary place; it needs --data.
    """
    engine = engine.with_provider()
    options = options if engine.uses_gradient else options.gradient_free()
    check_asked(options, run, several=engine.several)
    opened = _opened(artifact, engine, model, options, trust)
    accepted = None if artifact.is_file() else state  # a model file has no version to remember
    if accepted is not None:
        check_acceptable(accepted, opened, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned)
    each = engine.each(opened.manifest.ships)
    for one in each:
        check_precision(opened, one.precision or "")
    with accept_what_passes(opened, accepted, allow_rollback=allow_rollback):
        if len(each) > 1:
            judge_each(opened, each, partial(_subject, artifact, opened, model, options, state), options, run)
        directories = directories_of(opened, each[0], options, run)
        subject = _subject(artifact, opened, model, options, state, each[0])
        judge_subject(subject, options, run, directories)


def _subject(
    artifact: Path,
    opened: Bundle,
    model: ModelOptions,
    options: VerifyOptions,
    state: Path | None,
    engine: EngineOptions,
) -> Subject:
    """Open what is judged, in one precision on one runner, and its images before it."""
    manifest, precision = opened.manifest, engine.precision or opened.manifest.ships
    has_parent = PARENT in manifest.graphs and precision != PARENT
    # Before an engine takes memory: the images' file is let go.
    classes = options.class_names_or(manifest.classes)
    images = evaluation_images(opened) if artifact.is_file() else _images(opened, options, classes)
    pairing = command_pairing(opened, engine, state)
    session = pairing.session(precision)
    lends = has_parent and engine.uses_gradient and manifest.graphs[PARENT].gradient is not None
    lender = pairing.lending(PARENT) if lends else None
    engine = engine.stating_lender(pairing.lender)
    subject = Subject(
        session=session,
        name=manifest.name,
        classes=classes,
        shape=(manifest.input.channels, manifest.input.height, manifest.input.width),
        images=images,
        libraries=_libraries(engine),
        command=_command("MODEL.onnx" if artifact.is_file() else "BUNDLE", engine, model),
        threat_model=manifest.threat_model,
        gate=manifest.gate,
        claimed_images=None if artifact.is_file() else manifest.evaluation.n,
        expected_clean=least_expected(manifest.reference.clean, manifest.reference.n) if manifest.reference else None,
        bundle_version=manifest.version,
        authenticated=opened.signed_by is not None,
        lender=lender,
    )
    if not has_parent:
        return subject
    return replace(subject, parent=lambda: _parent(subject, pairing.session(PARENT), engine))


def _libraries(engine: EngineOptions) -> tuple[str, ...]:
    """Return the packages that decide what the judge answers, and the gradient that attacks follow."""
    backends = dict.fromkeys((engine.backend, *([engine.gradient_backend.backend] if engine.gradient_backend else [])))
    return (*LIBRARIES, *(package for name in backends for package in BACKENDS[name].libraries))


def _command(artifact: str, engine: EngineOptions, model: ModelOptions) -> str:
    """Return what repeats the run, as far as `VerifyOptions` do not say it."""
    return f"edgeproof verify {artifact} {shlex.join([*command_words(engine), *command_words(model)])}"


def _parent(subject: Subject, session: Session, engine: EngineOptions) -> Subject:
    """Return the same subject in the precision that drops are measured from."""
    command = _command("BUNDLE", engine.model_copy(update={"precision": PARENT}), ModelOptions())
    return replace(subject, session=session, command=command, parent=None, lender=None)


@click.command()
@click.argument(
    "shards", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR..."
)
@record_options(report=ReportOptions)
def merge(shards: tuple[Path, ...], report: ReportOptions) -> None:
    """Put the shards of one run together, and judge it as one run would be."""
    run = Run(*merge_parts([read_part(directory) for directory in shards]))
    artifact = run.report.artifact
    out = report.out or fresh_directory(artifact.name, artifact.precision)
    with new_directory(out) as directory:
        finish_run(directory, run, formats=write_all)
    show(run.report, out, as_json=report.as_json)


def _opened(
    artifact: Path, engine: EngineOptions, model: ModelOptions, options: VerifyOptions, trust: Trust | None
) -> Bundle:
    """Open a bundle, or pack a model into one that lives in memory alone."""
    if artifact.is_dir():
        if model != ModelOptions():
            raise UsageFault(
                "--mean, --std, --bgr and --output are of a model; a bundle carries its normalisation",
                hint="leave them out",
            )
        return open_bundle(artifact, trust)
    if trust:
        raise UsageFault(f"{artifact} is a model file, which has no signature", hint="--trust is for a bundle")
    if options.data is None:
        raise UsageFault(f"{artifact} brings no images", hint="--data SET, an .npz with x and y or an image folder")
    if options.max_drop is not None and options.against is None:
        raise UsageFault(
            f"--max-drop has nothing to compare {artifact} with",
            hint="--against DIR, the --out of a verify that has finished",
        )
    check_decidable(options, options.gate_or(Gate()))
    wanted = Wanted(
        options.data,
        options.layout,
        options.data_root,
        model.mean,
        model.std,
        engine.uses_gradient,
        options.size,
        options.class_names,
        model.bgr,
        model.output,
    )
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as scratch:
        bundle = Path(scratch) / "bundle"
        pack_first(artifact, bundle, wanted, options.threat_model_or(ThreatModel()))
        opened = open_bundle(bundle)
    return Bundle(artifact, opened.manifest, opened.contents)  # errors name what the user gave


def _images(bundle: Bundle, options: VerifyOptions, classes: tuple[str, ...]) -> ImageSet:
    manifest = bundle.manifest
    if options.data is None:
        return evaluation_images(bundle)
    return find_images(
        options.data,
        root=options.data_root,
        layout=options.layout,
        channels=manifest.input.channels,
        preprocessing=manifest.preprocessing,
        size=options.size,
        classes=classes,
    )

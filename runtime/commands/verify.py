"""`edgeproof verify` and `merge`. Heavy modules are imported in the functions, so that --help is fast."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.hub.artifact import ArtifactType, on_disk
from runtime.options.engine import EngineOptions
from runtime.options.groups import OF_A_VERDICT, GroupedCommand
from runtime.options.preparers import ModelOptions
from runtime.options.record import record_options
from runtime.options.run import ReportOptions, RunOptions
from runtime.options.trust import (
    accept_what_passes,
    allow_rollback_option,
    allow_unsigned_option,
    attest_option,
    state_option,
    trust_option,
)
from runtime.verdict.options import VerifyOptions

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from runtime.bundle.signing import Trust
    from runtime.hub.place import HubPlace


@click.command(cls=GroupedCommand, groups=OF_A_VERDICT)
@click.argument("artifact", metavar="BUNDLE|MODEL.onnx|hf://ORG/NAME", type=ArtifactType())
@record_options(engine=EngineOptions)
@trust_option
@state_option
@allow_rollback_option
@allow_unsigned_option
@attest_option
@record_options(model=ModelOptions, options=VerifyOptions, run=RunOptions)
def verify(
    artifact: Path | HubPlace,
    engine: EngineOptions,
    trust: Trust | None,
    state: Path | None,
    allow_rollback: bool,
    allow_unsigned: bool,
    attest_key: EllipticCurvePrivateKey | None,
    model: ModelOptions,
    options: VerifyOptions,
    run: RunOptions,
) -> None:
    """Attack the artifact that ships, on this machine, and judge it.

    For example: edgeproof verify model.onnx --data test.npz --eps 2/255

    An ONNX file is packed into a bundle first, in a temporary place; it needs --data. A bundle of the Hugging Face Hub
    is fetched first, as hf://ORG/NAME or hf://ORG/NAME@REVISION.
    """
    from runtime.attestation.attesting import attested, check_attestable
    from runtime.backends.table import check_precision
    from runtime.commands.judging import check_asked, judge_subject, write_all
    from runtime.commands.judging_each import directories_of, judge_each
    from runtime.commands.subjects import open_artifact, open_subject
    from runtime.spec import Gate

    engine = engine.with_provider()
    options = options if engine.uses_gradient else options.gradient_free()
    check_asked(options, run, several=engine.several)
    artifact, origin = on_disk(artifact)
    accepted = None if artifact.is_file() else state  # a model file has no version to remember
    opened = open_artifact(
        artifact, engine, model, options, trust, accepted, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned
    )
    if attest_key:
        check_attestable(opened, options, run.out if run.resume else None, several=engine.several)
    each = engine.each(opened.manifest.ships)
    for one in each:
        check_precision(opened, one.precision or "")
    subject_of = partial(
        open_subject, artifact, origin, opened, model, options, state, click.get_current_context().with_resource
    )
    gated = options.gate_or(opened.manifest.gate) != Gate()
    with accept_what_passes(opened, accepted if gated else None, allow_rollback=allow_rollback):
        if len(each) > 1:
            judge_each(opened, each, subject_of, options, run)
        directories = directories_of(opened, each[0], options, run)
        write = attested(opened, attest_key, write_all) if attest_key else None
        judge_subject(subject_of(each[0]), options, run, directories, write)


@click.command()
@click.argument(
    "shards", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR..."
)
@record_options(report=ReportOptions)
def merge(shards: tuple[Path, ...], report: ReportOptions) -> None:
    """Combine the shards of one run, and judge it like a run that was never split."""
    from runtime.commands.judging import fresh_directory, show, write_all
    from runtime.files import new_directory
    from runtime.verdict.case import Run
    from runtime.verdict.run_directory import finish_run, read_part
    from runtime.verdict.shards import merge as merge_parts

    run = Run(*merge_parts([read_part(directory) for directory in shards]))
    artifact = run.report.artifact
    out = report.out or fresh_directory(artifact.name, artifact.precision)
    with new_directory(out) as directory:
        finish_run(directory, run, formats=write_all)
    show(run.report, out, as_json=report.as_json)

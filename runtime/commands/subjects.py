"""Opens the subject of a verdict: the bundle or model, its images and its engines."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.backends.table import BACKENDS
from runtime.bundle.described import describe
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import Bundle, open_bundle
from runtime.checks.clean import least_expected
from runtime.errors import UsageFault
from runtime.images.find import find_images
from runtime.options.engine import pairing_of
from runtime.options.preparers import ModelOptions, Wanted, preparer_of
from runtime.options.trust import open_acceptable
from runtime.records.options import command_words
from runtime.spec import PARENT, Gate, ThreatModel
from runtime.terminal.progress import working
from runtime.verdict.options import check_decidable
from runtime.verdict.subject import LIBRARIES, Subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.backends.pairing import Pairing
    from runtime.bundle.signing import Trust
    from runtime.images.image_set import ImageSet
    from runtime.options.engine import EngineOptions
    from runtime.session import Session
    from runtime.verdict.options import VerifyOptions


def open_artifact(
    artifact: Path,
    engine: EngineOptions,
    model: ModelOptions,
    options: VerifyOptions,
    trust: Trust | None,
    state: Path | None = None,
    *,
    allow_rollback: bool = False,
    allow_unsigned: bool = False,
) -> Bundle:
    """Open a bundle, or pack a model file into a bundle that is kept only in memory.

    Raises:
        UsageFault: an option is for bundles, and `artifact` is a model file, or the other way round.
        EdgeproofError: see `open_acceptable` and `preparer_of`; or packing fails.

    """
    if artifact.is_dir():
        if model != ModelOptions():
            raise UsageFault(
                "--mean, --std, --bgr and --output are for a model file; a bundle holds its own",
                hint="leave them out",
            )
        return open_acceptable(artifact, trust, state, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned)
    pack = preparer_of(artifact)
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
        with working(f"packing {artifact.name}: its graph, and the graph of its gradient"):
            pack(artifact, bundle, wanted, options.threat_model_or(ThreatModel()))
        opened = open_bundle(bundle)
    return Bundle(artifact, opened.manifest, opened.contents)  # errors name the path that the user gave


def open_subject(
    artifact: Path,
    origin: str | None,
    opened: Bundle,
    model: ModelOptions,
    options: VerifyOptions,
    state: Path | None,
    keep: Callable[[Session], Session],
    engine: EngineOptions,
) -> Subject:
    """Open the subject in one precision on one runner; its images are read first.

    Args:
        artifact: a bundle's directory, or a model's file.
        origin: the Hub's address from which it was fetched, with the commit; None for a local path.
        opened: the bundle, or the bundle into which the model was packed.
        model: the options with which a model was packed.
        options: of the verdict.
        state: the directory in which engines are kept.
        keep: is called with every session, to register it for closing, and returns it.
        engine: the runner and the precision.

    Raises:
        BadData: the images cannot be read, or their classes differ from the model's.
        EdgeproofError: see `Pairing.session`.

    """
    manifest, precision = opened.manifest, engine.precision or opened.manifest.ships
    has_parent = PARENT in manifest.graphs and precision != PARENT
    # Read before an engine takes memory; then the images' file is released.
    classes = options.class_names_or(manifest.classes)
    images = evaluation_images(opened) if artifact.is_file() else _images(opened, options, classes)
    described = describe(opened)  # before an engine takes memory
    pairing = pairing_of(opened, engine, state, keep)
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
        witness=pairing.witness(precision),
        origin=origin,
        model=described,
    )
    if not engine.judges_in_parent(manifest):
        return subject
    return replace(subject, parent=lambda: _parent(subject, pairing, engine))


def _libraries(engine: EngineOptions) -> tuple[str, ...]:
    """Return the packages that decide the judge's answers and the lender's gradients."""
    backends = dict.fromkeys((engine.backend, *([engine.gradient_backend.backend] if engine.gradient_backend else [])))
    return (*LIBRARIES, *(package for name in backends for package in BACKENDS[name].libraries))


def _command(artifact: str, engine: EngineOptions, model: ModelOptions) -> str:
    """Return the command that repeats the run, without the options in `VerifyOptions`."""
    return f"edgeproof verify {artifact} {shlex.join([*command_words(engine), *command_words(model)])}"


def _parent(subject: Subject, pairing: Pairing, engine: EngineOptions) -> Subject:
    """Return the same subject in PARENT, the baseline of a drop."""
    command = _command("BUNDLE", engine.model_copy(update={"precision": PARENT}), ModelOptions())
    session, witness = pairing.session(PARENT), pairing.witness(PARENT)
    return replace(subject, session=session, command=command, parent=None, lender=None, witness=witness)


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

"""The commands that need PyTorch: recipes, teach, distill, evaluate, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from lightning_fabric.utilities.rank_zero import rank_zero_only

from export.bundle.write import Claims
from export.network.export_network import export_network
from export.precision.calibrate import Calibration, calibration_images
from export.precision.options import choice, precision_options
from export.precision.table import Choice
from pipeline.data.sets import Dataset, hold_out, load_dataset
from pipeline.recipe.file import assignment
from pipeline.recipe.json_schema import recipe_schema
from pipeline.recipe.schema import load_recipe
from pipeline.recipe.source import checked
from pipeline.runs.directory import CHECKPOINTS, Summary, TrainedRun, open_run
from pipeline.runs.distill import SAVE_SECONDS
from pipeline.runs.distill import distill as run_recipe
from pipeline.runs.evaluate import run_subject
from pipeline.runs.named import named
from pipeline.runs.teacher import teacher_architecture
from pipeline.training.devices import training_device
from pipeline.training.precision import in_words
from runtime.bundle.manifest import Provenance, Reference
from runtime.commands.judging import check_asked, choose_directories, judge_subject
from runtime.images.find import find_images
from runtime.images.image_set import ImageSet
from runtime.machine.card import software
from runtime.options.groups import OF_A_VERDICT, GroupedCommand
from runtime.options.preparers import data_root_option
from runtime.options.record import NewDirectory, OneOf, record_options
from runtime.options.run import RunOptions
from runtime.options.trust import key_option, version_option, written
from runtime.spec import PARENT
from runtime.terminal.going_on import to_go_on
from runtime.terminal.log import log
from runtime.verdict.options import VerifyOptions
from runtime.words import file_size, percent

DIRECTORY = click.Path(path_type=Path, file_okay=False)
COUNT = click.IntRange(min=1)


def _assignments(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if assignment(value) is None:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE, such as train.epochs=2")
    return values


recipe_argument = click.argument("recipe", callback=checked("recipe"))
out_option = click.option(
    "--out", type=NewDirectory(), help="Run directory.  [default: runs/NAME, with the name of the recipe]"
)
run_argument = click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
checkpoint_option = click.option(
    "--checkpoint",
    type=OneOf(list(CHECKPOINTS)),
    default="best",
    show_default=True,
    help="Checkpoint of the run.",
)


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_assignments,
    help="Override a key of the recipe, such as train.epochs=2. Repeatable.",
)

weak_teacher_option = click.option(
    "--allow-weak-teacher", is_flag=True, help="Continue with a teacher whose accuracy under PGD is near chance."
)


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that teach and distill share."""
    options = (
        recipe_argument,
        out_option,
        data_root_option,
        set_option,
        click.option("--resume", is_flag=True, help="Continue the stopped run in --out, to the same weights."),
        click.option(
            "--devices",
            type=COUNT,
            default=1,
            show_default=True,
            help="GPUs per machine, or CPU processes without a GPU.",
        ),
        click.option(
            "--nodes", type=COUNT, default=1, show_default=True, help="Number of machines, with torchrun or srun."
        ),
        weak_teacher_option,
        click.option(
            "--save-every",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            default=SAVE_SECONDS,
            show_default=True,
            help="Save the state this often within an epoch.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.option("--schema", is_flag=True, help="Print the JSON schema of a recipe's file instead, for an editor.")
def recipes(schema: bool) -> None:
    """List the names you can use: recipes, studies, methods, networks, teachers, data sets, augmentations."""
    if schema:
        click.echo(json.dumps(recipe_schema(), indent=2))
        return
    for title, names in named().items():
        click.echo(f"{title}:")
        for name, lines in names.items():
            click.echo("\n".join((f"  {name}", *(f"      {line}" for line in lines))))
        click.echo()


@click.command()
@training_options
def distill(**asked: Any) -> None:
    """Train the student of RECIPE, which is a name or a .toml file.

    For example: edgeproof distill fashion-mini --set train.epochs=8
    """
    _train(**asked)


@click.command()
@training_options
def teach(**asked: Any) -> None:
    """Train a robust teacher with RECIPE, which is a name or a .toml file.

    Another recipe then uses the run as [teacher] path.
    """
    _train(**asked)


def _train(
    recipe: str,
    out: Path | None,
    data_root: Path,
    overrides: tuple[str, ...],
    resume: bool,
    devices: int,
    nodes: int,
    save_every: float,
    allow_weak_teacher: bool,
) -> None:
    loaded = load_recipe(recipe, overrides)
    out = out or Path("runs") / loaded.name
    try:
        summary = run_recipe(
            loaded,
            out,
            data_root=data_root,
            resume=resume,
            devices=devices,
            nodes=nodes,
            save_seconds=save_every,
            allow_weak_teacher=allow_weak_teacher,
        )
    except KeyboardInterrupt:
        log.warning(to_go_on(out))
        raise
    _print_summary(summary, out)


@rank_zero_only
def _print_summary(summary: Summary, out: Path) -> None:
    for which, figures in (("best", summary.best), ("last", summary.last)):
        click.echo(
            f"{which}: epoch {figures.epoch}, on {figures.n} hold-out images: "
            f"clean {percent(figures.clean)}, PGD-10 {percent(figures.pgd)}"
        )
    if summary.judged is not None:
        click.echo(str(summary.judged))
    precision = in_words(summary.precision, summary.search_precision)
    click.echo(f"{summary.seconds:.0f} s, {summary.images_per_second:.0f} images/s, {precision}: {out}")


@click.command(cls=GroupedCommand, groups=OF_A_VERDICT)
@run_argument
@checkpoint_option
@record_options(options=VerifyOptions, report=RunOptions)
def evaluate(run: Path, checkpoint: str, options: VerifyOptions, report: RunOptions) -> None:
    """Attack the PyTorch student of RUN with the attacks that `verify` runs on the exported artifact."""
    check_asked(options, report)
    trained = open_run(run, checkpoint)
    recipe = trained.recipe
    directories = choose_directories(
        options, report, name=recipe.name, precision=PARENT, gate=recipe.gate, has_parent=False
    )
    classes = options.class_names_or(trained.card.classes)
    subject = run_subject(trained, _evaluation_images(trained, options, classes), device=training_device())
    subject = replace(subject, classes=classes)
    judge_subject(subject, options, report, directories)


def _evaluation_images(trained: TrainedRun, options: VerifyOptions, classes: tuple[str, ...]) -> ImageSet:
    card, data = trained.card, trained.recipe.data
    if options.data is None:
        dataset = load_dataset(data.name, data.path, options.data_root, preprocessing=data.size)
        return replace(dataset.test.numbered(card.classes), classes=classes)
    return find_images(
        options.data,
        layout=options.layout,
        channels=card.input.channels,
        preprocessing=data.size,
        size=options.size,
        classes=classes,
        root=options.data_root,
    )


@click.command()
@run_argument
@checkpoint_option
@data_root_option
@click.option(
    "--out", type=NewDirectory(), help="Bundle to write.  [default: bundles/NAME, with the name of the recipe]"
)
@precision_options(default="fp32")
@version_option
@key_option
def export(
    run: Path,
    checkpoint: str,
    data_root: Path,
    out: Path | None,
    version: int,
    key: EllipticCurvePrivateKey | None,
    **options: Any,
) -> None:
    """Export the student of RUN as a bundle.

    The bundle holds the ONNX graph, its gradient graph, the test images, digests and, with --key, a signature.
    """
    chosen = choice(options)
    trained = open_run(run, checkpoint)
    recipe = trained.recipe
    out = out or Path("bundles") / recipe.name
    claims = Claims(
        name=recipe.name,
        classes=trained.card.classes,
        preprocessing=recipe.data.size,
        threat_model=recipe.threat,
        version=version,
        gate=recipe.gate,
        reference=_reference(trained),
        provenance=_provenance(trained),
        ships=chosen.ships,
    )
    data = load_dataset(recipe.data.name, recipe.data.path, data_root, preprocessing=recipe.data.size)
    data = data.numbered(trained.card.classes)
    manifest = export_network(
        trained.network,
        shape=trained.card.input,
        evaluation=data.test,
        claims=claims,
        out=out,
        precisions=chosen.names,
        calibration=_calibration(trained, data, chosen) if chosen.calibrated else None,
        key=key,
    )
    for precision, graph in manifest.graphs.items():
        parity = graph.parity
        assert parity is not None
        assert parity.median_gradient_error is not None
        click.echo(
            f"{precision}: opset {graph.opset}, {file_size(manifest.files[graph.forward].size)}; against PyTorch on "
            f"{manifest.evaluation.n} images: same prediction {percent(parity.prediction_agreement, 2)}, logits within "
            f"{parity.max_logit_error:.0e}, median gradient error {parity.median_gradient_error:.0e}"
        )
    if len(manifest.graphs) > 1:
        click.echo(f"ships: {manifest.ships}")
    click.echo(written(out, key))


def _calibration(trained: TrainedRun, data: Dataset, chosen: Choice) -> Calibration:
    """Return the calibration of int8: training images, and the hold-out, on which the cost of int8 is measured."""
    recipe = trained.recipe
    training, held = hold_out(data.train, recipe.data.holdout, recipe.seed)
    images, _ = calibration_images(training, data.test, chosen.images, recipe.seed)
    return Calibration(images, chosen.method, chosen.keep, held, recipe.threat.eps)


def _reference(trained: TrainedRun) -> Reference | None:
    figures = trained.card.figures
    if figures is None:
        return None
    return Reference(checkpoint=trained.checkpoint, n=figures.n, clean=figures.clean, pgd=figures.pgd)


def _provenance(trained: TrainedRun) -> Provenance:
    """Return the provenance of a student. It keeps only the last part of each path in the recipe."""
    recipe = trained.recipe.to_dict()
    places = [(table, "path") for table in (recipe["data"], recipe["data"].get("extra", {}), recipe.get("teacher", {}))]
    for table, key in (*places, (recipe.get("int8", {}), "start")):
        if key in table:
            table[key] = Path(table[key]).name
    return Provenance(
        recipe=recipe,
        recipe_sha256=trained.recipe_sha256,
        checkpoint_sha256=trained.checkpoint_sha256,
        start_sha256=trained.summary.start_sha256,
        teacher_sha256=trained.summary.teacher_sha256,
        teacher_architecture=teacher_architecture(trained.recipe.teacher, trained.summary.teacher_sha256),
        training_data=trained.summary.training_data,
        extra_data=trained.summary.extra_data,
        software=software(("edgeproof", "onnx", "onnxruntime", "onnxscript", "torch")),
    )

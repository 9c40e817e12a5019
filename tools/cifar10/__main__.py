"""Prints what the route to a CIFAR-10 verdict costs, and then runs it: `make cifar10`.

    python -m tools.cifar10 [--small] [--data DIR]

does the same in the environment of a clone. Finished steps only say how they ended. On a CPU the full size is refused,
with the time that it would take there. The exit code is that of the verdict, or of the step that failed.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import onnxruntime
import torch

from pipeline.data.sets import load_dataset
from pipeline.recipe.schema import load_recipe
from pipeline.runs.evaluate import device_name
from pipeline.training.devices import training_device
from runtime.backends.providers import PROVIDERS
from runtime.errors import BadData, EdgeproofError, MissingEnvironment
from runtime.words import duration, file_size
from tools.cifar10.cost import CLASSES, SIDE, network, seconds_of, steps_of
from tools.cifar10.steps import FULL, SMALL, Source, Step, Way, source_of, steps, trains

BYTES_A_WEIGHT = 48
"""Bytes on disk per weight: 16 for each of the two runs, and about as many for the bundle in three precisions."""


def provider_for(device: torch.device) -> str:
    """Return the execution provider that attacks the exported graph: the GPU's, if this ONNX Runtime has it."""
    there = PROVIDERS["cuda"].name in onnxruntime.get_available_providers()
    return "cuda" if device.type == "cuda" and there else "cpu"


def count_images(source: Source) -> int:
    """Return the number of training images. The published images are downloaded if they are missing.

    Raises:
        BadData: they are missing and cannot be downloaded, or they do not look like CIFAR-10's.

    """
    try:
        dataset = load_dataset(None if source.path else "cifar10", source.path, source.root)
    except BadData as error:
        if source.path:
            raise
        raise BadData(error.message, hint="make cifar10 DATA=DIR takes images that you have") from error
    shape, classes = dataset.train.images.shape[1:], len(dataset.classes)
    if (*shape, classes) != (3, SIDE, SIDE, CLASSES):
        kind = f"{' x '.join(map(str, shape))}, of {classes} classes"
        raise BadData(
            f"DATA holds images of {kind}", hint="CIFAR-10's are 3 x 32 x 32, of 10; docs/reference/images.md"
        )
    return len(dataset.train)


def expectation(way: Way, left: Sequence[Step], images: int, device: torch.device, provider: str) -> str:
    """Return what to expect of the remaining steps, as text: work, time, disk space and accuracy."""
    recipes = teacher, student = load_recipe(way.teacher), load_recipe(way.student)
    seconds = seconds_of(way, teacher, student, images, device, torch.device(provider))
    training = {
        name: f"{recipe.method.name}, {recipe.student.arch} of width {recipe.student.width:g}, "
        f"{steps_of(recipe, images)} steps of {recipe.train.batch} images"
        for name, recipe in zip(("teach", "distill"), recipes, strict=True)
    }
    does = {
        **training,
        "export": "fp32, fp16 and int8, each with the graph of its gradient",
        "verify": f"PGD and AutoAttack on {way.images} test images, by ONNX Runtime on {provider}",
    }
    rows = []
    for step in left:
        name = step.words[0]
        takes = f"about {duration(seconds[name])}" if name in seconds else "a minute or so"
        rows.append(f"{name:8} {does[name]}: {takes}")
    whole = sum(seconds.get(step.words[0], 0.0) for step in left)
    weights = sum(weight.numel() for weight in network(student).parameters())
    return "\n".join(
        (
            f"{len(left)} steps are left, on {device_name(device)}, {images} training images:",
            *rows,
            f"time     about {duration(whole)}, by the fastest of the steps that were timed just now",
            f"disk     about {file_size(BYTES_A_WEIGHT * weights)} in runs/, bundles/ and reports/",
            f"accuracy {way.accuracy.replace(chr(10), chr(10) + 9 * ' ')}",
        )
    )


def go(way: Way, source: Source) -> None:
    """Print what to expect of the steps that are left, and exit with the code of `follow`.

    Raises:
        EdgeproofError: see `count_images`.
        MissingEnvironment: a network of full size has to be trained, and there is no GPU.

    """
    device = training_device()
    provider = provider_for(device)
    every = steps(way, source, provider)
    left = [step for step in every if step.left]
    if left:
        click.echo(expectation(way, left, count_images(source), device, provider))
    if way is FULL and device.type == "cpu" and trains(every):
        raise MissingEnvironment(
            "there is no GPU here, and on this CPU it would take the time above", hint="make cifar10 SMALL=1"
        )
    sys.exit(follow(every))


def follow(every: Sequence[Step]) -> int:
    """Run commands until one fails; return the code of the last, which is that of the verdict.

    A finished step is asked again: it refuses another recipe or another artifact, an unfinished one also other images,
    and `verify` returns the code of the verdict on record. Only `export` is left out if its bundle is of this
    checkpoint.
    """
    for step in every:
        if step.of is not None and not step.left:
            continue
        click.echo(f"\n$ edgeproof {' '.join(step.words)}")
        code = subprocess.run([sys.executable, "-m", "edgeproof", *step.words], check=False).returncode
        if code:
            return code
    return 0


@click.command()
@click.option("--small", is_flag=True, help="A quarter of the width and few steps: minutes on a CPU.")
@click.option("--data", type=click.Path(path_type=Path), help="CIFAR-10: an image folder, .npz files or its archive.")
def main(small: bool, data: Path | None) -> None:
    """Make a robust CIFAR-10 student, from images to a verdict."""
    try:
        go(SMALL if small else FULL, source_of(data))
    except EdgeproofError as error:
        click.echo(f"error: {error.message}\nhint: {error.hint}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""What the disturbed commands are given: a small model, its images, a bundle, a run, shards, a device."""

import shutil

import numpy as np

from runtime.bundle.install import install
from runtime.bundle.opening import open_bundle
from tests.faults import forked
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, bundle_files, graph, linear_task, npz

STEPS = ("--set", "train.max_steps=3")
NETWORK = "few_operators.py"
MAKES = """\
from torch import nn


def make(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, classes))
"""
"""The student: PyTorch's exporter takes some seconds for any network of `arch`."""


def need(directory, names, scratch):
    """Make the inputs named that are not there yet, by the commands themselves where they are theirs."""
    for name in names:
        if not (directory / name).exists():
            MADE[name](directory / name, scratch)


def lay(directory, names, place):
    """Copy the inputs named into an empty place."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "tmp").mkdir(parents=True)
    for name in names:
        source = directory / name
        if source.is_dir():
            shutil.copytree(source, place / name, symlinks=True)
        else:
            shutil.copy2(source, place / name)


def _bundle(version):
    return lambda at, scratch: write_bundle(at, bundle_files(linear_task()), n=60, version=version)


def _device(at, scratch):
    need(at.parent, ("bundle",), scratch)
    install(open_bundle(at.with_name("bundle")), at, state=at)


def _model(at, scratch):
    weight, bias, _, _ = linear_task()
    at.write_bytes(graph(FORWARD, weight, bias))


def _images(at, scratch):
    _, _, images, labels = linear_task()
    at.write_bytes(npz(x=np.round(images * 255).astype(np.uint8), y=labels))


def _shard(number):
    def make(at, scratch):
        need(at.parent, ("bundle",), scratch)
        asked = ("--attacks", "fgsm,pgd", "--shard", f"{number}/2")
        _done(("verify", "bundle", *asked, "--out", at.name), at.parent, scratch)

    return make


def _training(at, scratch):
    """Make a recipe, and its images and teacher beside it."""
    from tests.pipeline.runs.small_runs import write_small

    at.mkdir()
    recipe = write_small(at)
    said = recipe.read_text().replace(str(at), at.name)
    recipe.write_text(said.replace('arch = "resnet18"\nwidth = 0.0625', 'factory = "few_operators:make"'))


def _network(at, scratch):
    at.write_text(MAKES)


def _trained(at, scratch):
    need(at.parent, (NETWORK, "training"), scratch)
    _done(("distill", "training/small.toml", *STEPS, "--out", at.name), at.parent, scratch)


def _done(words, directory, scratch):
    (directory / "tmp").mkdir(exist_ok=True)
    ended = forked.run(words, directory, scratch)
    assert ended.code == 0, ended.said


MADE = {
    "bundle": _bundle(1),
    **{f"bundle-{version}": _bundle(version) for version in range(2, 7)},
    "device": _device,
    "model.onnx": _model,
    "images.npz": _images,
    "shard-1": _shard(1),
    "shard-2": _shard(2),
    NETWORK: _network,
    "training": _training,
    "trained": _trained,
}
"""By name: what makes it at a path."""

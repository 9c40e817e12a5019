"""The commands that are disturbed: what each is given, what it is called with, and what must come of it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from safetensors import safe_open

from runtime.bundle.install import CURRENT, PREVIOUS
from runtime.bundle.opening import open_bundle
from runtime.bundle.rollback import read_state
from runtime.files import sha256
from runtime.records.bench import load_bench
from runtime.records.report import load_report
from tests.faults import inputs

OUT = "out"
CLOCKS = {"seconds", "busy_seconds", "images_per_second", "time", "check"}
"""Fields that say how long something took, or are made of that: no two runs are alike in them."""
NUMBER = re.compile(rb"\d+([.:,]\d+)*")


def plain(value):
    """Return a JSON value without how long anything took."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key not in CLOCKS}
    return [plain(each) for each in value] if isinstance(value, list) else value


def digest(path):
    """Return what a file says, as a digest that depends on no clock."""
    if path.is_symlink():
        return f"-> {path.readlink()}"
    data = path.read_bytes()
    if path.suffix == ".json":
        return sha256(json.dumps(plain(json.loads(data)), sort_keys=True).encode())
    if path.suffix == ".jsonl":
        return sha256(json.dumps([plain(json.loads(line)) for line in data.splitlines()], sort_keys=True).encode())
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.suffix in (".html", ".xml"):  # they say in the middle of words how long it took
        return sha256(NUMBER.sub(b"#", data))
    return sha256(data)


def _tensors(path):
    with safe_open(path, framework="np") as file:
        names = sorted(file.keys())
        return sha256(b"".join(name.encode() + np.ascontiguousarray(file.get_tensor(name)).tobytes() for name in names))


def tree(directory, but=()):
    """Return all files below a directory and what they say; `but` those whose name matches."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_symlink() or path.is_file()]
    named = {str(path.relative_to(directory)): path for path in files}
    return {name: digest(path) for name, path in named.items() if not any(re.search(each, name) for each in but)}


def whole_or_absent(out):
    """A bundle is whole, or not there."""
    if out.exists() and any(path for path in out.iterdir() if not path.name.startswith(".")):
        open_bundle(out)


def no_early_report(out):
    """report.json is written last: where it is, it is whole and so is what lies beside it."""
    if (out / "report.json").exists():
        load_report(out)
        assert {"run.json", "evidence.npz", "gallery.npz"} <= {path.name for path in out.iterdir()}


def device_is_sound(to):
    """`current` is a whole bundle, and what is on record is not older."""
    version = open_bundle(to / CURRENT).manifest.version
    assert read_state(to).accepted["tiny"].version >= version >= 1
    if (to / PREVIOUS).is_symlink():
        open_bundle(to / PREVIOUS)


def bench_is_whole(out):
    """bench.json can be read, or is not there."""
    load_bench(out)


def no_early_summary(out):
    """summary.json is written last."""
    if (out / "summary.json").exists():
        names = {path.name for path in out.iterdir()}
        assert {"recipe.toml", "student.best.safetensors", "student.last.safetensors"} <= names


def figures_of_a_bench(out):
    """Return what a bench must say whatever it measured."""
    found = load_bench(out)
    return {} if found is None else {"runs": str([(run.precision, run.batch) for run in found.runs])}


@dataclass(frozen=True)
class Disturbed:
    """A command.

    Args:
        words: it is called with, in a directory that holds the inputs.
        given: the inputs that it is given, of `inputs.MADE`.
        sound: checks of what it writes what must hold at any moment.
        result: what it wrote, in words that are the same for every right end.
        module: is imported before any fork.
        ready: is called after that, likewise.

    """

    words: tuple[str, ...]
    given: tuple[str, ...]
    sound: Callable[[Path], None]
    result: Callable[[Path], dict[str, str]] = tree
    module: str = "runtime.commands.verify"
    ready: Callable[[], None] = lambda: None


def but_logs(out):
    """Return all files of a training run but TensorBoard's, which hold times."""
    return tree(out, (r"^tensorboard/",))


def device(out):
    return out.with_name("device")


def operators_are_read_once():
    """Let PyTorch's exporter read its table of operators before any fork, and once: that takes it some seconds."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from export.network.to_onnx import OPSET

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))
    ONNXRegistry.from_torchlib(opset_version=OPSET)


ATTACKS = ("--attacks", "fgsm,pgd", "--batch", "32")
COMMANDS = {
    "install": Disturbed(
        ("install", "bundle-2", "--to", "device"),
        ("bundle-2", "device"),
        lambda out: device_is_sound(device(out)),
        lambda out: tree(device(out)),
        "runtime.commands.bundle",
    ),
    "merge": Disturbed(("merge", "shard-1", "shard-2", "--out", OUT), ("shard-1", "shard-2"), no_early_report),
    "bench": Disturbed(
        ("bench", "bundle", "--batch", "1,8", "--seconds", "0.02", "--idle", "0", "--out", OUT),
        ("bundle",),
        bench_is_whole,
        figures_of_a_bench,
        "runtime.commands.bench",
    ),
    "pack": Disturbed(
        ("pack", "model.onnx", "--data", "images.npz", "--eps", "0.01", "--out", OUT),
        ("model.onnx", "images.npz"),
        whole_or_absent,
        module="export.commands",
    ),
    "verify": Disturbed(("verify", "bundle", *ATTACKS, "--out", OUT, "--resume"), ("bundle",), no_early_report),
    "export": Disturbed(
        ("export", "trained", "--out", OUT),
        (inputs.NETWORK, "training", "trained"),
        whole_or_absent,
        module="pipeline.commands",
        ready=operators_are_read_once,
    ),
    "distill": Disturbed(
        ("distill", "training/small.toml", *inputs.STEPS, "--save-every", "0", "--out", OUT, "--resume"),
        (inputs.NETWORK, "training"),
        no_early_summary,
        but_logs,
        "pipeline.commands",
    ),
}

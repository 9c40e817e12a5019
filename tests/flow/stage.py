"""A place where a page's commands run: what the reader is taken to have, in small, and what each page has beside it."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.command_line import edgeproof
from tests.tiny import graph

COLOURS = """
<ir_version: 8, opset_import: ["" : 18]>
colours (float[B, 3, H, W] input) => (float[B, K] logits)
  <float[3, 3, 1, 1] same = {1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0}>
{
  copied = Conv(input, same)
  mean = GlobalAveragePool(copied)
  flat = Flatten(mean)
  logits = Gemm(flat, w, b)
}
"""
"""A model for pictures of any size, which tells them by their colour. int8 costs its first layer nothing."""
STEPS = "--set train.max_steps=3 --set train.batch=8 --set data.holdout=20"
RUN = (
    "distill fashion-mini --set data.path=my-images --set method.name=pgd-at --set student.width=0.0625 "
    "--set search.steps=1 --set search.step=8/255 --set train.max_steps=30 --set train.batch=16 --set data.holdout=20"
)
"""Trains a second on small pictures, for every page that takes a finished run."""
SHORTER = {
    "verify ": "--n 3",
    "bench ": "--seconds 0.2 --idle 0.1",
    "(teach|distill) ": STEPS,
    "distill ": "--allow-weak-teacher",
    "distill fashion-mini": "--set student.width=0.0625",
    "distill own-net": "--set train.max_steps=40 --set train.batch=32",
    "verify bundles/own-net": "--n 30",
    "teach .*wideresnet": "--set student.width=1 --set student.depth=10",
}
"""What keeps a command short that begins so. A teacher of three steps is weak; one's own network learns a little."""
OUTCOMES = {"verify": {0, 1, 5}, "merge": {0, 1, 5}}
"""Any verdict will do."""
BUNDLES = {"docs/signing.md": "bundle"}
"""The bundle that a page means by BUNDLE, where it makes one of its own."""
AGREED = ("docs/how-to/own-device.md",)
"""Pages whose judges must answer as the bundle does: a check blocks what else they say."""
REFUSED = {
    "edgeproof install BUNDLE --to /opt/model --trust public.pem --attestation attestation.json "
    "--require-attestation policy.toml": "does not meet policy.toml"
}
"""Commands that a small model must not pass, and what they say."""


def pictures(place, count, side, seed):
    random = np.random.default_rng(seed)
    for number, name in enumerate(("ant", "bee", "cat")):
        (place / name).mkdir(parents=True)
        for one in range(count):
            pixels = random.integers(60, 120, (side, side, 3)) + 80 * (np.arange(3) == number)
            Image.fromarray(pixels.astype(np.uint8)).save(place / name / f"{one:04}.png")


def arrays(place):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (24, 3, 8, 8), np.uint8), random.integers(0, 3, 24)
    for name in ("test", "train"):
        np.savez(place / f"{name}.npz", x=x if name == "test" else 255 - x, y=y)


def build(place):
    """Lay down all that pages take for granted."""
    arrays(place)
    (place / "model.onnx").write_bytes(graph(COLOURS, 20 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)))
    shutil.copy(place / "model.onnx", place / "candidate.onnx")
    pictures(place / "pictures", 2, 256, 1)
    (place / "classes.txt").write_text("ant\nbee\ncat\n")
    for name, part, count in (("my-images", "train", 40), ("my-images", "test", 4), ("other-images", "test", 4)):
        pictures(place / name / part, count, 8, len(part) + count)
    (place / "mine.toml").write_text(
        'base = "cifar10"\nname = "mine"\n[data]\npath = "my-images"\nholdout = 20\n[student]\nwidth = 0.25\n'
        '[search]\nsteps = 1\nstep = "8/255"\n'
    )
    pack = "pack model.onnx --data test.npz --out bundles/fashion-mini"
    for command in (RUN, "key new --out keys", pack, "sign bundles/fashion-mini --key keys/private.pem"):
        succeed(f"edgeproof {command}", place)
    (place / "public.pem").symlink_to("keys/public.pem")


def run(command, place):
    """Run a command there, ours in this process and any other in a shell; return exit code, stdout and stderr."""
    key = place / "keys/private.pem"
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "SIGNING_KEY": key.read_text() if key.exists() else "",
        "BUILD_NUMBER": "8",
        "GITHUB_RUN_NUMBER": "8",
        "RUN": "runs/fashion-mini",
    }
    if command.startswith("edgeproof ") and not set("$&|>") & set(command):
        with contextlib.chdir(place):
            called = edgeproof(*shlex.split(command)[1:], env=environment)
        return called.exit_code, called.stdout, called.stderr
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "OMP"))}
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, cwd=place, env=kept | environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def succeed(command, place):
    code, printed, told = run(command, place)
    assert code == 0, f"$ {command}\n{printed}\n{told}"


def shortened(command, bundle):
    """Return a command with its places put in and the options that shorten it, and its name."""
    line = command.split("#")[0].strip().removeprefix(".venv/bin/").replace("BUNDLE", bundle)
    line = line.replace("RECIPE", "fashion-mini").replace("${{ matrix.shard }}", "1")
    line = re.sub(r" --n \d+", "", re.sub(r" /(opt|srv|state)\b", r" \1", line))
    options = [options for pattern, options in SHORTER.items() if re.match(f"edgeproof {pattern}", line)]
    return " ".join([line, *options]), line.split()[1] if line.startswith("edgeproof ") else ""


def makes(line, name):
    """Return the directory that a command makes, which must be new."""
    if name not in ("teach", "distill", "export", "verify", "merge", "key") or "--resume" in line:
        return None
    if out := re.search(r"--out (\S+)", line):
        return out[1]
    return f"runs/{Path(line.split()[2]).stem}" if name == "distill" else None


def judge(command, place, page=""):
    """Run a command of a page there; what lies in the place of what it makes, makes room."""
    line, name = shortened(command, BUNDLES.get(page, "bundles/fashion-mini"))
    if made := makes(line, name):
        shutil.rmtree(place / made, ignore_errors=True)
    code, printed, told = run(line, place)
    if command in REFUSED:
        assert (code, REFUSED[command] in told) == (3, True), f"$ {line}\n{printed}\n{told}"
    else:
        due = {0} if page in AGREED else OUTCOMES.get(name, {0})
        assert code in due, f"$ {line}\n{printed}\n{told}"

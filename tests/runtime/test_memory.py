"""Memory of a run does not grow with the number of images, but for the file that they are mapped from."""

import re
import subprocess
import sys

import numpy as np
import pytest

from runtime.bundle.manifest import EVALUATION, InputShape
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, GRADIENT, graph, npz

MEASURED = """
import re, sys, threading
from pathlib import Path
from runtime.cli import main
ended, seen = threading.Event(), [0]
def look():
    while not ended.wait(0.005):
        seen.append(int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
threading.Thread(target=look, daemon=True).start()
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
ended.set()
print("peak", max(seen))
"""


def cifar_like(place, n):
    """Write a bundle of a linear classifier of 3 x 32 x 32 and n images that do not compress."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(3, 3 * 32 * 32)).astype(np.float32)
    images = random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    labels = (images[:, :, :, :].reshape(n, -1).astype(np.float32) / 255 @ weight.T).argmax(axis=1)
    texts = (text.replace("1, 4, 4", "3, 32, 32") for text in (FORWARD, GRADIENT))
    forward, gradient = (graph(text, weight, np.zeros(3, np.float32)) for text in texts)
    evaluation = npz(images=images, labels=labels, ids=np.arange(n))
    files = {"model.fp32.onnx": forward, "model.fp32.grad.onnx": gradient, EVALUATION: evaluation}
    return write_bundle(place, files, n=n, input=InputShape(channels=3, height=32, width=32))


def peak(bundle, out):
    """Return the most memory of a run that is no file's, in MiB."""
    command = [sys.executable, "-c", MEASURED, "verify", str(bundle), "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"peak (\d+)", result.stdout)[1]) / 1024


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_of_a_run_of_ten_thousand_images_is_at_most_a_tenth_more_than_of_a_thousand(tmp_path):
    bundles = [cifar_like(tmp_path / f"bundle{n}", n) for n in (1000, 10_000)]
    peaks = [peak(bundle, tmp_path / f"run{place}") for place, bundle in enumerate(bundles)]
    print(f"{peaks[0]:.0f} MiB for 1,000 images of 3 x 32 x 32, {peaks[1]:.0f} MiB for 10,000")
    assert peaks[1] <= 1.1 * peaks[0]

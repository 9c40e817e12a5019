"""Logits of every precision of a bundle on stored images, by the runtime alone; the same program on every machine.

python judge.py BUNDLE IMAGES.npz LOGITS.npz
"""

import platform
import sys
from pathlib import Path

import numpy as np

from runtime.backends.table import open_session
from runtime.bundle.opening import open_bundle


def main(bundle: Path, images: Path, out: Path) -> None:
    """Write PRECISION.SET, float32 [N, K], for each precision and each set float32 [N, C, H, W]; and the machine."""
    opened = open_bundle(bundle)
    logits = {"machine": np.array(platform.machine())}
    with np.load(images) as sets:
        for precision in opened.manifest.graphs:
            session = open_session(opened, precision=precision, backend="ort", provider="cpu", gradient=False)
            logits |= {f"{precision}.{name}": session.logits(sets[name]) for name in sets}
    np.savez(out, **logits)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Where the arithmetic of attacks runs: in NumPy on the host, or in another library on the card that answers.

`verify` computes in NumPy, parts of units side by side; on the card it would do unit after unit (docs/gpu.md says why).
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.subject import CLASSES
from pipeline.runs.evaluate import placement
from runtime.attacks import ATTACKS
from runtime.backends.table import open_session
from runtime.batches.fixed_sizes import FixedSizes
from runtime.batches.halving import BatchHalving
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import open_bundle
from runtime.images.image_set import ImageSet
from runtime.session import Session
from runtime.suite.campaign import Campaign
from runtime.suite.evidence import Evidence
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.terminal.progress import Silent

SUITE = ("fgsm", "pgd", "cw")


def libraries(provider: str) -> dict[str, tuple[Callable[[Any], Any], bool]]:
    """Return, by name, what brings arrays of NumPy to a library, and whether units go side by side."""
    found: dict[str, tuple[Callable[[Any], Any], bool]] = {
        "numpy side by side": (np.asarray, True),
        "numpy": (np.asarray, False),
        "torch": (placement(torch.device("cuda" if provider == "cuda" else "cpu")), False),
    }
    if provider == "cuda" and importlib.util.find_spec("cupy"):
        found["cupy"] = importlib.import_module("cupy").asarray, False
    return found


def suite(
    session: Session, images: ImageSet, place: Callable[[Any], Any], *, eps: float, batch: int, full: bool
) -> tuple[float, Evidence]:
    """Return the seconds of the suite after the clean pass, and what it found."""
    target = Target(FixedSizes(BatchHalving(session), batch), images, CLASSES, batch, place, full=full)
    evidence = clean_pass(target, 0, Silent())
    campaign, began = Campaign(target, evidence, eps, 0, Silent()), time.perf_counter()
    for row, name in enumerate(SUITE):
        campaign.attack(ATTACKS[name], row)
    return time.perf_counter() - began, evidence


def beside_numpy(place: Path, provider: str, batch: int, n: int) -> dict[str, dict[str, Any]]:
    """Return, by library, the seconds of the suite on n images and on how many it ends as NumPy unit after unit."""
    opened = open_bundle(place)
    images, eps = evaluation_images(opened).first(n), opened.manifest.threat_model.eps
    found: dict[str, tuple[float, Evidence]] = {}
    failed: dict[str, dict[str, Any]] = {}
    for name, (bring, full) in libraries(provider).items():
        with open_session(opened, precision="fp32", backend="ort", provider=provider) as session:
            try:
                found[name] = suite(session, images, bring, eps=eps, batch=batch, full=full)
            except Exception as error:  # a library that fails takes no figure of the others with it
                failed[name] = {"error": f"{type(error).__name__}: {error}"}
    told = {
        name: {"seconds": round(seconds, 3), "same": int((evidence.broken_by == found["numpy"][1].broken_by).sum())}
        for name, (seconds, evidence) in found.items()
        if "numpy" in found
    }
    return {"n": {"images": len(images)}, **told, **failed}


def main() -> int:
    """Print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--provider", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--n", type=int, default=512)
    asked = parser.parse_args()
    print(json.dumps(beside_numpy(asked.bundle, asked.provider, asked.batch, asked.n)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What fp16 and int8 cost a trained student, under attack: the table, the calibration methods, the sensitive layers.

    python -m benchmarks.precision RUN OUTPUT.json [N]

RUN is what `edgeproof distill fashion-mini` left; the figures are of the first N test images (300) and go into OUTPUT
beside those of other runs. Every accuracy is judged by the graph of that precision, on ONNX Runtime's CPU, which
computes float16 in float32 where it can. `worst` is per image over FGSM, PGD-10 and CW with the graph's own gradient;
`worst_union` adds the same attacks with the fp32 graph's gradient. `built` is what TensorRT-RTX's parser and builder
make of forward and gradient graph.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_rtx
from onnx import ModelProto

from export.gradient import gradient_graph
from export.graph.passes import Prepared, to_bytes
from export.network.to_onnx import to_onnx
from export.precision.calibrate import METHODS, Calibration, calibration_images, in_int8
from export.precision.candidate import Candidate
from export.precision.half import in_float16
from export.precision.mixed import keep
from export.precision.sensitivity import MOST, accuracy, chosen, ranked
from export.tensorrt import build
from pipeline.data.sets import hold_out, load_dataset
from pipeline.runs.directory import open_run
from runtime.attacks import ATTACKS
from runtime.backends.ort import OrtSession
from runtime.errors import EngineFault, GraphRefused
from runtime.files import sha256
from runtime.images import DATA_ROOT
from runtime.images.image_set import ImageSet
from runtime.machine.card import machine_card, software
from runtime.session import LossSpec, Session, SessionCard
from runtime.statistics import wilson
from runtime.suite.campaign import Campaign
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.tensorrt.library import TENSORRT_RTX, library_of
from runtime.tensorrt.store import EngineKey, Profile
from runtime.terminal.log import log
from runtime.terminal.progress import Silent

SUITE = ("fgsm", "pgd", "cw")
SHOWN = 8
"""Layers of the ranking that are written down."""


class BorrowedGradient(Session):
    """A graph judged by its own logits, attacked with another's gradient."""

    def __init__(self, judge: OrtSession, attacker: OrtSession) -> None:
        self._judge, self._attacker = judge, attacker

    def logits(self, x: Any) -> Any:
        """Return the judge's logits."""
        return self._judge.logits(x)

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return the attacker's gradient, as an artifact in another precision than its gradient graph has it."""
        return self._attacker.loss_gradient(x, loss)

    def card(self) -> SessionCard:
        """Return the judge's card."""
        return self._judge.card()


def session_of(forward: Prepared, precision: str) -> OrtSession:
    """Return a session with the model's own gradient graph."""
    return OrtSession(to_bytes(forward.model), to_bytes(gradient_graph(forward)), precision=precision)


def attacked(session: Any, images: ImageSet, eps: float) -> tuple[dict[str, float], Any]:
    """Return accuracies by attack, and bool [N]: right, and broken by none."""
    target = Target(session, images, 10, 50, np.asarray)
    evidence = clean_pass(target, 0, Silent())
    campaign = Campaign(target, evidence, eps, 0, Silent())
    figures = {"clean": float(evidence.correct.mean())}
    for row, name in enumerate(SUITE):
        figures[name] = campaign.attack(ATTACKS[name], row).accuracy
    return figures, evidence.broken_by == -1


def judged(name: str, forward: Prepared, images: ImageSet, eps: float, parent: OrtSession) -> dict[str, Any]:
    """Measure one precision."""
    log.info(f"  {name}")
    session = session_of(forward, name)
    figures, standing = attacked(session, images, eps)
    x = images.as_float(slice(None))
    exact, found = parent.logits(x), session.logits(x)
    row = {"precision": name, **figures, "worst": float(standing.mean())}
    if name != "fp32":
        _, transferred = attacked(BorrowedGradient(session, parent), images, eps)
        row["worst_parent"] = float(transferred.mean())
        standing = standing & transferred
    row["worst_union"] = float(standing.mean())
    row["worst_union_ci95"] = wilson(int(standing.sum()), len(images))
    row["same_prediction"] = float((found.argmax(1) == exact.argmax(1)).mean())
    row["logit_error"] = float(np.abs(found - exact).max() / np.abs(exact).max())
    gradient = gradient_graph(forward)
    row["bytes"], row["gradient_bytes"] = len(to_bytes(forward.model)), len(to_bytes(gradient))
    row["built"] = {"forward": built(forward.model), "gradient": built(gradient)}
    return row


def built(model: ModelProto) -> str:
    """Return 'built', or what TensorRT-RTX says, of the product's own builder over it."""
    library, graph = library_of(tensorrt_rtx, TENSORRT_RTX), to_bytes(model)
    nowhere = {"cuda": "none", "gpu": "none", "compute_capability": "none"}
    key = EngineKey(graph_sha256=sha256(graph), tensorrt=library.version, profile=Profile(usual=8, most=64), **nowhere)
    try:
        build(library, graph, key)
    except (GraphRefused, EngineFault) as error:
        return error.message
    return "built"


def compared(forward: Prepared, images: ImageSet, data: ImageSet, eps: float) -> dict[str, Any]:
    """Measure plain int8 by each calibration method."""
    x = images.as_float(slice(None))
    exact = forward.logits(x)
    rows = {}
    for method in METHODS:
        log.info(f"  {method}")
        candidate = Candidate(in_int8(forward, Calibration(data, method)))
        found = candidate.session.logits(x)
        figures = accuracy(candidate, images, eps)
        rows[method] = {
            "clean": figures.clean,
            "pgd": figures.pgd,
            "same_prediction": float((found.argmax(1) == exact.argmax(1)).mean()),
            "mean_square_logit_error": float(np.square(found - exact).mean()),
        }
    return rows


def kept(forward: Prepared, int8: Prepared, held: ImageSet, images: ImageSet, eps: float) -> dict[str, Any]:
    """Measure which layers int8 hurts, what `auto` keeps, and what keeping 1, 2 and 4 of them changes."""
    single = Candidate(forward)
    ranking = ranked(int8, single, held)
    x = images.as_float(slice(None))
    exact = single.session.logits(x)
    errors = {}
    for count in (0, 1, 2, 4, 8):
        log.info(f"  {count} layers in fp16")
        names = [name for name, _ in ranking[:count]]
        model = keep(int8, forward, names) if names else int8
        found = model.logits(x)
        errors[count] = {
            "mean_square_logit_error": float(np.square(found - exact).mean()),
            "built": built(model.model) if names else None,
            "bytes": len(to_bytes(model.model)),
        }
    return {
        "most": MOST,
        "auto": chosen(Candidate(int8), single, held, eps)[0],
        "most_sensitive": [[name, error] for name, error in ranking[:SHOWN]],
        "of_layers": len(ranking),
        "kept_in_fp16": errors,
    }


def measure(run: Path, n: int) -> dict[str, Any]:
    """Measure one run."""
    trained = open_run(run, "best")
    recipe = trained.recipe
    data = load_dataset(recipe.data.name, recipe.data.path, DATA_ROOT, preprocessing=recipe.data.size)
    images, eps = data.test.first(n), recipe.threat.eps
    training, held = hold_out(data.train, recipe.data.holdout, recipe.seed)
    calibration, _ = calibration_images(training, data.test, 512, recipe.seed)
    forward = to_onnx(trained.network, trained.card.input)
    parent = session_of(forward, "fp32")
    int8 = in_int8(forward, Calibration(calibration))
    graphs = {"fp32": forward, "fp16": in_float16(forward), "int8": int8}
    return {
        "width": recipe.student.width,
        "recipe_sha256": trained.recipe_sha256,
        "n": n,
        "eps": eps,
        "precisions": [judged(name, graph, images, eps, parent) for name, graph in graphs.items()],
        "calibration": compared(forward, images, calibration, eps),
        "sensitivity": kept(forward, int8, held, images, eps),
    }


def main() -> None:
    """Measure a run and write it beside the others."""
    run, output = Path(sys.argv[1]), Path(sys.argv[2])
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    log.info(f"{run}, {n} images")
    found = measure(run, n)
    record = json.loads(output.read_text()) if output.is_file() else {"students": {}}
    record["students"][open_run(run, "best").recipe.student.arch] = found
    record |= {**machine_card(), "software": software(("onnx", "onnxruntime", "tensorrt-rtx", "torch"))}
    output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

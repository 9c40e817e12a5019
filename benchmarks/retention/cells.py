"""One cell: an artifact under the attacks of one route, image by image; and what is known of cells that are done."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.retention.artifacts import FORMATS, Format, opened
from runtime.attacks import ATTACKS, Attack
from runtime.backends.pairing import Pairing, Runner
from runtime.batches.halving import BatchHalving
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import Bundle
from runtime.errors import UsageFault
from runtime.files import write_atomic
from runtime.machine.card import machine_card, software
from runtime.records.measurements import AttackRow
from runtime.records.request import GradientSource
from runtime.session import Session
from runtime.spec import Digest, Frozen, Text, to_json
from runtime.suite.campaign import Campaign
from runtime.suite.plan import PlannedAttack
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.terminal.log import log
from runtime.terminal.progress import progress_on_stderr
from runtime.words import percent

BATCH = 64
SEEDS: dict[GradientSource, int] = {"own": 0, "parent": 1, "none": 0}
"""Of each route's noise. The second suite by a gradient begins elsewhere, so that every union is of as many searches:
the parent of fp32 is fp32 itself."""


def _shortened(name: str, **settings: float) -> Attack:
    return replace(ATTACKS[name], defaults={**ATTACKS[name].defaults, **settings})


BY_GRADIENT = (
    _shortened("pgd", steps=20, step=1 / 4),
    _shortened("cw", steps=20),
    _shortened("apgd-t", targets=3, steps=20),
)
BLIND = (_shortened("square", queries=500),)
ROUTES: dict[GradientSource, tuple[Attack, ...]] = {"own": BY_GRADIENT, "parent": BY_GRADIENT, "none": BLIND}
"""Whose gradient is followed, and the attacks, each on what those before it left. The same for every artifact."""


class Cell(Frozen):
    """What one route left of one artifact.

    `clean` and `robust` have a digit an image: 1 where it is classified rightly, and still is at every point tried.
    `lender` computed the gradient that was followed. It is None for the route without one, and in older records, where
    it is the engine that judged. `data_sha256` is that of the images; None in older records.
    """

    sha256: Digest
    gradient_sha256: Digest | None
    route: GradientSource
    eps: float
    n: int
    data_sha256: Digest | None = None
    clean: Text
    robust: Text
    attacks: tuple[AttackRow, ...]
    settings: dict[Text, dict[Text, float]]
    seed: int
    backend: Text
    provider: Text
    precision: Text
    lender: Text | None = None
    seconds: float
    device: dict[Text, Any]
    software: dict[Text, Text]


Cells = Mapping[str, Mapping[GradientSource, Cell]]
"""Those of one student, by the name of the format and the route."""


@dataclass(frozen=True)
class Engine:
    """What runs the artifacts: a key of BACKENDS, and one of its providers."""

    backend: str
    provider: str

    def open(self, bundle: Bundle, form: Format) -> Session:
        """Open one artifact. If the engine cannot run its gradient graph, ONNX Runtime's CPU lends the gradient."""
        return Pairing(bundle, Runner(self.backend, self.provider)).session(form.precision)


def run_cells(out: Path, engine: Engine, formats: Sequence[Format] = FORMATS) -> Cells:
    """Run the cells of one student that are not done, and return all.

    A cell belongs to the bytes of an artifact: two formats whose graphs are the same share it.

    Args:
        out: the directory of its bundles; cells lie in `cells`, a file each.
        engine: what runs them.
        formats: fp32 first.

    """
    bundles = opened(out, formats)
    images = evaluation_images(bundles[FORMATS[0].bundle])
    found: dict[str, dict[GradientSource, Cell]] = {}
    with engine.open(bundles[FORMATS[0].bundle], FORMATS[0]) as parent:
        for form in formats:
            bundle = bundles[form.bundle]
            with engine.open(bundle, form) as session:
                target = Target(BatchHalving(session), images, len(bundle.manifest.classes), BATCH, lender=parent)
                eps = bundle.manifest.threat_model.eps
                found[form.name] = {route: _cell(target, route, eps, out) for route in ROUTES}
    return found


def _cell(target: Target, route: GradientSource, eps: float, out: Path) -> Cell:
    """Return a cell that is done, else do it."""
    card = target.session.card()
    path = out / "cells" / f"{card.backend}-{card.provider}-{card.sha256[:16]}-{route}.json"
    if not path.is_file():
        log.info(f"{path.stem} of {out.name}: {card.precision}")
        write_atomic(path, to_json(attacked(target, route, eps)))
    cell = Cell.model_validate_json(path.read_bytes())
    _check_same(path, cell, target, route, eps)
    return cell


def _check_same(path: Path, cell: Cell, target: Target, route: GradientSource, eps: float) -> None:
    """Raise `UsageFault` unless a cell that was done is what would be done now."""
    card = target.session.card()
    known = {} if cell.data_sha256 is None else {"data_sha256": target.images.sha256}
    known |= {} if cell.lender is None else {"lender": _lender(target, route)}
    wanted = {
        "sha256": card.sha256,
        "gradient_sha256": card.gradient_sha256,
        "route": route,
        "eps": eps,
        "n": len(target.images),
        "settings": settings(route),
        "seed": SEEDS[route],
        **known,
    }
    other = [name for name, value in wanted.items() if getattr(cell, name) != value]
    if other:
        raise UsageFault(f"{path} is of another {', '.join(other)}", hint="remove it, or name another --out")


def attacked(target: Target, route: GradientSource, eps: float) -> Cell:
    """Attack an artifact by one route, on all of its images."""
    began = time.perf_counter()
    with progress_on_stderr() as progress:
        evidence = clean_pass(target, 0, progress)
        campaign = Campaign(target, evidence, eps, SEEDS[route], progress)
        *rows, _ = campaign.cascade(PlannedAttack(route, ROUTES[route], route), 0)
    card = target.session.card()
    log.info(f"clean {percent(evidence.correct.mean())}, robust {percent(evidence.robust.mean())}")
    return Cell(
        sha256=card.sha256,
        gradient_sha256=card.gradient_sha256,
        route=route,
        eps=eps,
        n=len(evidence),
        data_sha256=target.images.sha256,
        clean=_digits(evidence.correct),
        robust=_digits(evidence.robust),
        attacks=tuple(rows),
        settings=settings(route),
        seed=SEEDS[route],
        backend=card.backend,
        provider=card.provider,
        precision=card.precision,
        lender=_lender(target, route),
        seconds=round(time.perf_counter() - began, 1),
        device={**machine_card(), "accelerator": card.device},
        software=software(("edgeproof", "onnxruntime", "openvino")),
    )


def _lender(target: Target, route: GradientSource) -> str | None:
    """Return the backend that computes the gradient of a route."""
    source = {"own": target.session, "parent": target.lender, "none": None}[route]
    if source is None:
        return None
    card = source.card()
    return card.gradient_backend or card.backend


def settings(route: GradientSource) -> dict[str, dict[str, float]]:
    """Return what the attacks of a route are run with."""
    return {attack.name: dict(attack.defaults) for attack in ROUTES[route]}


def standing(cell: Cell, what: Literal["clean", "robust"] = "robust") -> Any:
    """Return the digits of a cell as bool [N]."""
    return np.frombuffer(getattr(cell, what).encode(), np.uint8) == ord("1")


def union(cells: Cells, form: str) -> Any:
    """Return which images survive every route: bool [N]."""
    return np.logical_and.reduce([standing(cells[form][route]) for route in ROUTES])


def _digits(flags: Any) -> str:
    return "".join("1" if flag else "0" for flag in flags)

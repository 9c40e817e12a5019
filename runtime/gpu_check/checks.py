"""Checks that compare the artifact on a GPU with ONNX Runtime on the CPU: logits, gradients and verdicts of each image.

Each check runs in a process of its own, so that a crash does not end the others. It writes OUT/NAME.json, and arrays
with a row per image. The arguments of the process are NAME BUNDLE OUT N MANIFEST_SHA256 [STATE].
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import ATTACKS
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends.table import open_session, provider_of
from runtime.batches.halving import BatchHalving
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.manifest import MANIFEST
from runtime.bundle.opening import Bundle, open_bundle
from runtime.errors import (
    BadBundle,
    EdgeproofError,
    EngineFault,
    MissingEnvironment,
    NonFinite,
    OutOfMemory,
    missing_extra,
)
from runtime.files import npz_of, sha256, write_atomic
from runtime.records.gpu_check import EngineComparison, Result, Spread, State, Tolerances
from runtime.spec import to_json
from runtime.suite.campaign import Campaign
from runtime.suite.evidence import STANDS, Evidence
from runtime.suite.units import Target
from runtime.terminal.progress import progress_on_stderr
from runtime.words import percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.images.image_set import ImageSet
    from runtime.session import Session

CHECKS_GROUP = "edgeproof.gpu_checks"
"""Entry points: from a check's name to a function of CheckContext that returns a Result."""
ATTACK = "pgd"
BATCH = 64
ALONE = 7
"""Images that are also run alone, outside a batch."""
PASSES = 5
TINY = float(np.finfo(np.float32).tiny)
STRICT = Tolerances(same_prediction=0.998, same_verdict=0.99, gradient_error=1e-3, gradient_cosine=0.999)
"""Limits for float32 without TF32. An H200 had an error of 7.7e-7, a cosine of 1.000000 and all 128 verdicts equal."""
LIMITS = {"fp32": STRICT}
LOOSE = Tolerances(same_prediction=0.97, same_verdict=0.95, gradient_error=3e-2, gradient_cosine=0.99)
"""Limits for other precisions, in which CPU and GPU round differently. That H200 had an error of 1.3e-2 in fp16."""


@dataclass(frozen=True)
class CheckContext:
    """The input of a check.

    Args:
        bundle: the opened bundle.
        images: the first of its evaluation images, as many as were requested.
        out: the directory for arrays.
        state: the directory in which engines are kept; None for the user's cache.

    """

    bundle: Bundle
    images: ImageSet
    out: Path
    state: Path | None


@dataclass(frozen=True)
class Answers:
    """A session's answers: logits [N, K]; with a gradient graph also gradients [N, D] and broken_by [N] by ATTACK."""

    logits: Any
    gradient: Any | None
    broken_by: Any | None

    @property
    def prediction(self) -> Any:
        """Return the classes: int64 [N]."""
        return self.logits.argmax(axis=1)


def tensorrt(given: CheckContext) -> Result:
    """Compare `--backend tensorrt`."""
    return compare_precisions("tensorrt", given, "tensorrt", provider_of("tensorrt", None))


def onnx_runtime_cuda(given: CheckContext) -> Result:
    """Compare `--backend ort --provider cuda`."""
    return compare_precisions("ort-cuda", given, "ort", "cuda")


def onnx_runtime_tensorrt(given: CheckContext) -> Result:
    """Compare `--backend ort --provider tensorrt`."""
    return compare_precisions("ort-tensorrt", given, "ort", "tensorrt")


def compare_precisions(name: str, given: CheckContext, backend: str, provider: str) -> Result:
    """Compare every precision of a bundle. If one fails, the others are still compared.

    Raises:
        MissingEnvironment: the backend does not work here.

    """
    found, failed = [], []
    for precision in given.bundle.manifest.graphs:
        try:
            found.append(_compare_precision(name, given, precision, backend, provider))
        except EdgeproofError as error:
            if _absent(error):
                raise
            failed.append(f"{precision}: {error.message}")
    beyond = [f"{each.precision}: {limit}" for each in found for limit in each.beyond]
    message = "; ".join([*failed, *beyond]) or f"{', '.join(each.precision for each in found)} on {found[0].device}"
    state: State = "failed" if failed else "differs" if beyond else "agrees"
    return Result(name=name, state=state, message=message, comparisons=tuple(found))


def _compare_precision(name: str, given: CheckContext, precision: str, backend: str, provider: str) -> EngineComparison:
    opening = partial(open_session, given.bundle, precision=precision)
    with (
        opening(backend="ort", provider="cpu") as here,
        opening(backend=backend, provider=provider, state=given.state) as there,
    ):
        return compare_sessions(BatchHalving(there), BatchHalving(here), given, f"{name}-{precision}")


def _absent(error: EdgeproofError) -> bool:
    """Return whether an error means that something is missing, and not that it failed."""
    return isinstance(error, MissingEnvironment) and not isinstance(error, (EngineFault, OutOfMemory))


def compare_sessions(there: Session, here: Session, given: CheckContext, stem: str) -> EngineComparison:
    """Compare the answers of two sessions, the second being the reference; keep both in `OUT/STEM.npz`."""
    card, images = there.card(), given.images
    x = images.as_float(slice(None))
    ours, theirs = answers(there, given), answers(here, given)
    error = _apart(ours.logits, theirs.logits)
    alone = np.concatenate([there.logits(x[i : i + 1]) for i in range(min(ALONE, len(x)))])
    _keep(given.out / f"{stem}.npz", ours, theirs, images)
    comparison = EngineComparison(
        precision=card.precision,
        sha256=card.sha256,
        engine_sha256=card.engine_sha256,
        device=card.device,
        n=len(images),
        same_prediction=int((ours.prediction == theirs.prediction).sum()),
        logit_error=spread(error),
        batch_error=float(_apart(alone, there.logits(x[:ALONE])).max()),
        milliseconds=_milliseconds(there, x[:BATCH]),
        beyond=(),
        **_white_box(ours, theirs),
    )
    return comparison.model_copy(update={"beyond": beyond(comparison, LIMITS.get(card.precision, LOOSE))})


def _white_box(ours: Answers, theirs: Answers) -> dict[str, Any]:
    """Return the fields of a comparison that need a gradient graph."""
    if ours.gradient is None or theirs.gradient is None:
        return {}
    length = np.maximum(np.linalg.norm(theirs.gradient, axis=1), TINY)
    stands, should = (np.asarray(each.broken_by) == STANDS for each in (ours, theirs))
    return {
        "gradient_error": spread(np.linalg.norm(ours.gradient - theirs.gradient, axis=1) / length),
        "gradient_cosine": float(_cosine(ours.gradient, theirs.gradient).min()),
        "attack": ATTACK,
        "same_verdict": int((stands == should).sum()),
        "robust": int(stands.sum()),
        "robust_reference": int(should.sum()),
    }


def answers(session: Session, given: CheckContext) -> Answers:
    """Return a session's logits for all images, the gradients of cross-entropy, and the outcome of ATTACK.

    Raises:
        NonFinite: an answer is NaN or infinite.

    """
    images, classes = given.images, len(given.bundle.manifest.classes)
    x = images.as_float(slice(None))
    parts = [slice(start, start + BATCH) for start in range(0, len(x), BATCH)]
    logits = np.concatenate([session.logits(x[rows]) for rows in parts])
    _refuse_non_finite("logits", logits)
    session.confirm()
    if not session.card().differentiable:
        return Answers(logits, None, None)
    label = one_hot(images.labels, classes)
    gradient = np.concatenate([session.loss_gradient(x[rows], cross_entropy(label[rows]))[2] for rows in parts])
    _refuse_non_finite("gradients", gradient)
    session.confirm()
    everything = np.arange(len(images))
    evidence = Evidence.blank(images, everything[:0])
    with progress_on_stderr() as progress:
        eps = given.bundle.manifest.threat_model.eps
        campaign = Campaign(Target(session, images, classes, BATCH), evidence, eps, 0, progress)
        campaign.classify(everything)
        campaign.attack(ATTACKS[ATTACK], 0)
    return Answers(logits, gradient.reshape(len(x), -1), evidence.broken_by)


def beyond(found: EngineComparison, limits: Tolerances) -> tuple[str, ...]:
    """Return in words the limits that a comparison exceeds."""
    least = {"same_prediction": limits.same_prediction, "same_verdict": limits.same_verdict}
    said = []
    for name, share in least.items():
        count = getattr(found, name)
        if count is not None and count < min(found.n - 1, share * found.n):
            said.append(f"{name} of {count} of {found.n} images, {percent(share)} are needed")
    if found.gradient_error and found.gradient_error.median > limits.gradient_error:
        said.append(
            f"gradient_error of {found.gradient_error.median:.1e}, at most {limits.gradient_error:.0e} is allowed"
        )
    if found.gradient_cosine is not None and found.gradient_cosine < limits.gradient_cosine:
        said.append(f"gradient_cosine of {found.gradient_cosine:.4f}, at least {limits.gradient_cosine} is needed")
    return tuple(said)


def _refuse_non_finite(what: str, array: Any) -> None:
    if not np.isfinite(array).all():
        raise NonFinite(f"{what} are NaN or infinite", hint="look for an overflow in the graph")


def spread(values: Any) -> Spread:
    """Return the median, the 99 % quantile and the largest of some values."""
    median, high, largest = np.quantile(np.asarray(values, np.float64), [0.5, 0.99, 1.0])
    return Spread(median=float(median), high=float(high), largest=float(largest))


def _apart(z: Any, other: Any) -> Any:
    """Return each image's largest difference of logits, relative to its largest absolute logit: [N]."""
    return np.abs(z - other).max(axis=1) / np.maximum(np.abs(other).max(axis=1), TINY)


def _cosine(g: Any, other: Any) -> Any:
    """Return the cosine of each image's two gradients [N]; 1 if both are 0."""
    lengths = [np.linalg.norm(each.astype(np.float64), axis=1) for each in (g, other)]
    product = np.einsum("nd,nd->n", g, other, dtype=np.float64)
    return np.where(np.maximum(*lengths) == 0, 1, product / np.maximum(lengths[0] * lengths[1], TINY * TINY))


def _milliseconds(session: Session, x: Any) -> float:
    session.logits(x)
    began = time.perf_counter()
    for _ in range(PASSES):
        session.logits(x)
    return 1000 * (time.perf_counter() - began) / (PASSES * len(x))


def _keep(path: Path, ours: Answers, theirs: Answers, images: ImageSet) -> None:
    arrays = {"index": images.ids, "label": images.labels, "logits": ours.logits, "logits_reference": theirs.logits}
    if ours.gradient is not None and theirs.gradient is not None:
        arrays |= {"broken_by": ours.broken_by, "broken_by_reference": theirs.broken_by}
        arrays |= {"gradient_error": np.linalg.norm(ours.gradient - theirs.gradient, axis=1)}
        arrays |= {"gradient_length_reference": np.linalg.norm(theirs.gradient, axis=1)}
    write_atomic(path, npz_of(arrays))


def run_check(name: str, given: CheckContext) -> Result:
    """Run one check and return its result; a missing requirement and a failure are results too."""
    (entry,) = entry_points(group=CHECKS_GROUP, name=name)
    began = time.perf_counter()
    try:
        try:
            check: Callable[[CheckContext], Result] = entry.load()
        except ImportError as error:
            raise missing_extra(f"the check {name}", tuple(entry.extras), error) from error
        result = check(given)
    except EdgeproofError as error:
        result = Result(
            name=name, state="not there" if _absent(error) else "failed", message=error.message, hint=error.hint
        )
    return result.model_copy(update={"seconds": round(time.perf_counter() - began, 1)})


def main(arguments: list[str]) -> None:
    """Run one check, and write its result to OUT/NAME.json.

    Raises:
        BadBundle: the bundle changed after the command opened it, and perhaps checked its signature.

    """
    name, bundle, out, n, manifest_sha256, *state = arguments
    opened = open_bundle(Path(bundle))
    if sha256(opened.read(MANIFEST)) != manifest_sha256:
        raise BadBundle(f"{bundle} changed after it was opened", hint="run the checks again")
    images = evaluation_images(opened)
    given = CheckContext(opened, images.first(min(int(n), len(images))), Path(out), Path(state[0]) if state else None)
    write_atomic(given.out / f"{name}.json", to_json(run_check(name, given)))

"""Standard AutoAttack by `evaluate`'s session beside another implementation, on the same network and device.

The other is Croce's own (github.com/fra31/auto-attack) where it can be imported, else torchattacks'. Both run in
float32 with float32 products. First the bare cost of a pass: eager, and replayed as a CUDA graph.
"""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.sheet import Sheet, parser
from benchmarks.gpu.subject import CLASSES, FULL, TINY, half_stand, images_of, network
from pipeline.models.layers import frozen
from pipeline.runs.evaluate import TorchSession, forward, gradient, placement
from pipeline.training.precision import arithmetic
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.errors import MissingEnvironment
from runtime.images.image_set import ImageSet
from runtime.spec import ThreatModel
from runtime.terminal.progress import Silent
from runtime.verdict.case import verify
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject

BATCHES, ROUNDS, BATCH = (64, 256), 10, 256
OF_A_GRADIENT = 7000
"""What standard AutoAttack costs an image, roughly, in passes for a gradient: to choose how many images it gets."""


def seconds(action: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Return the median seconds of an action, the device waited for, after it was done three times."""
    times = []
    for _ in range(rounds + 3):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def passes(made: nn.Module, side: int, batch: int, device: torch.device, rounds: int) -> dict[str, float]:
    """Return milliseconds an image, forward and gradient: eager, as the session runs them, and of a folded copy."""
    session = TorchSession(made, sha256="", device=device)
    folded = TorchSession(frozen(made), sha256="", device=device)
    x = torch.rand(batch, 3, side, side, device=device)
    loss = cross_entropy(one_hot(torch.arange(batch, device=device) % CLASSES, CLASSES))
    actions: dict[str, Callable[[], Any]] = {
        "forward_eager": lambda: forward(made, x),
        "forward": lambda: session.logits(x),
        "gradient_eager": lambda: gradient(made, x, *vars(loss).values()),
        "gradient": lambda: session.loss_gradient(x, loss),
        "forward_folded": lambda: folded.logits(x),
        "gradient_folded": lambda: folded.loss_gradient(x, loss),
    }
    return {name: 1e3 * seconds(action, device, rounds) / batch for name, action in actions.items()}


def ours(made: nn.Module, images: ImageSet, eps: float, device: torch.device) -> tuple[dict[str, Any], np.ndarray]:
    """Return what `evaluate` costs, and which images survive."""
    subject = Subject(
        session=TorchSession(made, sha256="0" * 64, device=device),
        name="noise",
        classes=tuple(map(str, range(CLASSES))),
        shape=images.images.shape[1:],
        images=images,
        command="edgeproof evaluate RUN",
        threat_model=ThreatModel(eps=eps),
        to_device=placement(device),
    )
    options = VerifyOptions(attacks=("aa",), no_gate=True, batch=min(BATCH, len(images)))
    began = time.perf_counter()
    run = verify(subject, options, Silent())
    rows = [
        row.model_dump(mode="json", include={"name", "seconds", "forwards", "gradients", "broken"})
        for row in run.report.attacks
    ]
    attacks = run.report.attacks[-1].seconds
    return {"seconds": time.perf_counter() - began, "attacks_seconds": attacks, "rows": rows}, run.evidence.robust


def other() -> tuple[str, Callable[..., Tensor]]:
    """Return the other implementation's name, and what makes adversarial images.

    Raises:
        MissingEnvironment: there is none.

    """
    if importlib.util.find_spec("autoattack"):
        return "autoattack", croce
    if importlib.util.find_spec("torchattacks"):
        return "torchattacks", torchattacks
    raise MissingEnvironment("neither autoattack nor torchattacks is installed", hint="pip install torchattacks")


def croce(made: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Attack by the authors' implementation."""
    from autoattack import AutoAttack

    attack = AutoAttack(made, norm="Linf", eps=eps, version="standard", device=x.device, seed=0, verbose=False)
    return attack.run_standard_evaluation(x, y, bs=BATCH)  # type: ignore[no-any-return]


def torchattacks(made: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Attack by torchattacks' four, each on what the earlier ones left, at the settings of standard AutoAttack."""
    from torchattacks import APGD, APGDT, FAB, MultiAttack, Square

    steps = {"steps": 100, "seed": 0}
    attack = MultiAttack(
        [
            APGD(made, eps=eps, loss="ce", **steps),
            APGDT(made, eps=eps, n_classes=CLASSES, **steps),
            FAB(made, eps=eps, multi_targeted=True, n_classes=CLASSES, **steps),
            Square(made, eps=eps, n_queries=5000, resc_schedule=False, seed=0),
        ]
    )
    return torch.cat([attack(x[rows : rows + BATCH], y[rows : rows + BATCH]) for rows in range(0, len(x), BATCH)])


def theirs(
    attack: Callable[..., Tensor], made: nn.Module, images: ImageSet, eps: float, device: torch.device
) -> tuple[dict[str, float], np.ndarray]:
    """Return what theirs costs, and which images survive: those not misclassified within eps."""
    to_device = placement(device)
    x, y = to_device(images.as_float(slice(None))), to_device(images.labels)
    counted = {"forwards": 0, "gradients": 0}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counted["gradients" if output.requires_grad else "forwards"] += len(inputs[0])

    hook = made.register_forward_hook(count)
    began = time.perf_counter()
    with arithmetic("fp32", device):
        found = attack(made, x, y, eps).detach()
    cost = time.perf_counter() - began
    hook.remove()
    inside = (found - x).abs().amax(dim=(1, 2, 3)) <= eps + 1e-6
    stands = (forward(made, found)[0].argmax(dim=1) == y) | ~inside
    return {"seconds": cost, **counted}, stands.cpu().numpy()


def main() -> int:
    """Measure passes, then both sides on as many images as there is time for."""
    asked = parser(__doc__).parse_args()
    sheet, size, device = Sheet(asked.out, asked.seconds), TINY if asked.tiny else FULL, torch.device(asked.device)
    made = network(size, device)
    batches, rounds = ((16,), 2) if asked.tiny else (BATCHES, ROUNDS)
    costs = {batch: passes(made, size.side, batch, device, rounds) for batch in batches}
    sheet.note(pass_ms=costs)
    an_image = OF_A_GRADIENT * min(cost["gradient_eager"] for cost in costs.values()) / 1e3
    n = max(2, min(2 if asked.tiny else size.images, int(0.6 * sheet.left / an_image)))
    images = images_of(made, size, max(n, size.sample), device)
    eps = half_stand(made, images.first(size.sample), device)
    sheet.note(n=n, eps=eps)
    images = images.first(n)
    cost, stands = ours(made, images, eps, device)
    sheet.note(ours={**cost, "standing": int(stands.sum())})
    try:
        name, attack = other()
    except MissingEnvironment as error:
        print(error.message)
        return error.exit_code
    measured = partial(theirs, attack, made, images, eps, device)
    cost_there, stands_there = measured()
    sheet.note(
        theirs={"implementation": name, **cost_there, "standing": int(stands_there.sum())},
        times_faster=round(cost_there["seconds"] / cost["attacks_seconds"], 2),
        same_flags=float((stands == stands_there).mean()),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

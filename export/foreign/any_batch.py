"""Whether a graph gives each image of a batch the same answer as alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.graph.passes import refuse_infinite, to_bytes
from export.precision.table import PRECISIONS
from runtime.errors import BadModel
from runtime.graph.facts import graph_facts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.graph.passes import Prepared
    from runtime.images.image_set import ImageSet

BATCHES = (2, 5)
"""Batches that are compared with each image alone."""
BATCH_IN_LAST_BITS = "ONNX Runtime rounds its logits otherwise in another batch: another --batch may change figures"
MIXES = "its graph mixes the images of a batch, or fixes their number: export it with a dynamic batch"


def check_any_batch(name: str, graph: Prepared, images: ImageSet) -> tuple[str, ...]:
    """Raise `BadModel` if the answer to an image depends on the other images of the batch, or is infinite.

    The other images: within one batch size, the kernels compute the same for an image whatever the other images are.
    Its logits therefore stay the same to the bit when the others become black or white; otherwise the graph mixes them.

    Their number: in another batch size, kernels add in another order. This changes the last bits of a logit. After a
    rounding, where a value next to a step flips, it changes the logit by as much as the rounding itself may.

    Args:
        name: of the graph's precision, a key of `export.precision.table.PRECISIONS`.
        graph: the packed graph.
        images: the evaluation set.

    Returns:
        A remark if an image's logits are not the same to the bit in each of BATCHES.

    """
    x = _all_different(images)
    alone = np.concatenate([graph.logits(x[row : row + 1]) for row in range(len(x))])
    refuse_infinite(alone, "logits")
    most = _most(name, graph) * max(float(np.abs(alone).max()), float(np.finfo(np.float32).tiny))
    same = True
    for batch in BATCHES:
        logits = graph.logits(x[:batch])
        if logits.shape != alone[:batch].shape or not np.abs(logits - alone[:batch]).max() <= most:
            raise BadModel(
                f"in a batch of {batch}, the {name} graph gives other answers than for each image alone", hint=MIXES
            )
        for place, colour in ((0, 0), (batch - 1, 1)):
            others = np.full_like(x[:batch], colour)
            others[place] = x[place]
            if not np.array_equal(graph.logits(others)[place], logits[place]):
                raise BadModel(
                    f"in a batch of {batch}, the {name} graph's answer to an image depends on the other images",
                    hint=MIXES,
                )
        same = same and np.array_equal(logits, alone[:batch])
    return () if same else (BATCH_IN_LAST_BITS,)


def _most(name: str, graph: Prepared) -> float:
    """Return the largest change by another number of images, as a fraction of the largest logit."""
    facts = graph_facts(to_bytes(graph.model))
    rounds = facts.quantised or facts.staircases
    return max(PRECISIONS[kind].limits.logit for kind in ((name, "int8") if rounds else (name,)))


def _all_different(images: ImageSet) -> NDArray[np.float32]:
    """Return the first images of a set, filled up with random ones: [max(BATCHES), C, H, W].

    Images that occur twice would hide a graph that mixes a batch.
    """
    x = images.as_float(slice(0, max(BATCHES)))
    more = np.random.default_rng(0).random((max(BATCHES) - len(x), *x.shape[1:]), dtype=np.float32)
    return np.concatenate([x, more])

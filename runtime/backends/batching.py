"""The batch sizes that suit a GPU."""

from __future__ import annotations

from math import prod

from runtime.session import Batching

LARGEST = 512
"""The most images in a pass. At this size, launching the kernels already costs little compared with their work."""
PART = 2
"""A pass may fill 1/PART of the GPU's memory. Weights, libraries and other programs need the rest."""
ACTIVATIONS, BYTES = 4096, 4
"""Values that a gradient graph holds at once per value of the image, and the bytes of each.

A forward pass of a WideResNet-34-10 at 32 x 32 makes 3,400 per value, of a ResNet-18 660, of a ResNet-50 at 224 x 224
fewer than 140 (counted over convolutions, norms, ReLUs and sums).
"""


def on_gpu(memory: int, image: tuple[int, ...]) -> Batching:
    """Return the batches for a GPU with `memory` bytes, and for images of the shape [C, H, W].

    The size follows from the total memory, and not from the free memory. So every run on the same GPU uses the same
    batches and gives the same bits. A batch that does not fit is halved later.
    """
    usual = Batching().largest
    fitting = memory // PART // (prod(image) * ACTIVATIONS * BYTES)
    largest = usual
    while 2 * largest <= min(LARGEST, fitting):
        largest *= 2
    return Batching(largest, full=True)

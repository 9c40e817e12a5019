"""How many images a GPU is worth being asked at once."""

from __future__ import annotations

from math import prod

from runtime.session import Batching

LARGEST = 512
"""Images in one pass, at most: launching the kernels of a pass then costs little beside what they compute."""
PART = 2
"""The part of the card's memory that a pass may fill: weights and libraries take some, others use the card too."""
ACTIVATIONS, BYTES = 4096, 4
"""Values that a gradient graph holds at once, for each value of the image, and bytes of one.

A forward pass of a WideResNet-34-10 makes 3,400 at 32 x 32, of a ResNet-18 660, of a ResNet-50 at 224 x 224 fewer than
140 (convolutions, norms, ReLUs and sums; counted).
"""


def on_gpu(memory: int, image: tuple[int, ...]) -> Batching:
    """Return the batch sizes for a GPU with this many bytes and images of one shape.

    Of all its memory, not of what is free now: the same card is asked for the same batch in every run, and so answers
    the same to the bit. Where that does not fit, the batch is halved.
    """
    usual = Batching().largest
    fitting = memory // PART // (prod(image) * ACTIVATIONS * BYTES)
    largest = usual
    while 2 * largest <= min(LARGEST, fitting):
        largest *= 2
    return Batching(largest, full=True)

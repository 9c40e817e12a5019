"""Sliding windows: the geometry that convolutions and pools share, always with static image sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Node


@dataclass(frozen=True)
class Window:
    """One window sliding over an image: sizes per spatial dimension."""

    image: tuple[int, ...]
    output: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """What one window covers, holes included."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def end(self) -> tuple[int, ...]:
        """How far the last window reaches beyond the image; negative where it leaves pixels unseen."""
        spans = zip(self.strides, self.output, self.extent, self.begin, self.image, strict=True)
        return tuple(s * (o - 1) + e - b - i for s, o, e, b, i in spans)

    def spread(self, emit: Emitter, dy: str, weight: str, group: int = 1) -> str:
        """Give every output's gradient back to the pixels it saw: the transposed convolution.

        Its padding is equal on both sides: no other runs on ONNX Runtime's CUDA provider. What is left at the end is
        `output_padding`, which cuDNN takes where it is less than a stride, and a Pad, which also crops, elsewhere.
        """
        pads, more, rest = zip(*map(_even, self.begin, self.end, self.strides), strict=True)
        full = emit(
            "ConvTranspose",
            dy,
            weight,
            group=group,
            kernel_shape=list(self.kernel),
            strides=list(self.strides),
            dilations=list(self.dilations),
            pads=[*pads, *pads],
            output_padding=list(more),
        )
        if not any(map(any, rest)):
            return full
        before, behind = zip(*rest, strict=True)
        return emit("Pad", full, emit.integers([0, 0, *before, 0, 0, *behind]))


def _even(begin: int, end: int, stride: int) -> tuple[int, int, tuple[int, int]]:
    """Return the padding of both sides, what is added at the end, and what is still to be padded on each side."""
    if 0 <= begin - end < stride:
        return begin, begin - end, (0, 0)
    pad = min(begin, max(end, 0))
    return pad, 0, (pad - begin, pad - end)


def window_of(node: Node, kernel: tuple[int, ...]) -> Window:
    """Read the window of a Conv or pool node.

    Raises:
        BadModel: an image size is known only at run time.

    """
    rank = len(kernel)
    image, output = node.sizes(node.shape(), 2), node.sizes(node.output_shape, 2)
    window = Window(
        image=image,
        output=output,
        kernel=kernel,
        strides=tuple(node.attribute("strides", [1] * rank)),
        dilations=tuple(node.attribute("dilations", [1] * rank)),
        begin=tuple(node.attribute("pads", [0] * 2 * rank)[:rank]),
    )
    return _with_automatic_begin(window, node.attribute("auto_pad", b"NOTSET"))


def _with_automatic_begin(window: Window, auto_pad: Any) -> Window:
    """Resolve SAME_UPPER and SAME_LOWER: the padding is halved, an odd pixel goes to the end or beginning."""
    if auto_pad in (b"NOTSET", b"VALID", b""):
        return window
    odd = 1 if auto_pad == b"SAME_LOWER" else 0
    unpadded = Window(**{**window.__dict__, "begin": (0,) * len(window.image)})
    begin = tuple((max(total, 0) + odd) // 2 for total in unpadded.end)
    return Window(**{**window.__dict__, "begin": begin})

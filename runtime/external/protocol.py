"""The protocol edgeproof-judge/1 between edgeproof and a judge's process; docs/reference/judges.md defines it.

A frame is its length (eight bytes, little-endian) and that many bytes: JSON for the handshake and for a refusal, and
otherwise an npy array.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from runtime.errors import BadAnswer, EdgeproofError, JudgeFault, OutOfMemory
from runtime.images.uint8_grid import to_levels
from runtime.session import Batching
from runtime.spec import Frozen, Name, Text, first_fault
from runtime.words import printable

PROTOCOL: Literal["edgeproof-judge/1"] = "edgeproof-judge/1"
LENGTH = struct.Struct("<Q")
MOST_JSON = 4096
"""The most bytes of a handshake or refusal. Text in place of a length reads as a larger number, and so is noticed."""
NPY_HEADER = 4096
"""The most bytes of an npy header."""
SEE = "docs/reference/judges.md says what a judge writes"
TO_STDERR = f"stdout is for answers alone: send all else to stderr; {SEE}"
SHOWN = 80


class Handshake(Frozen):
    """A judge's description of itself, before the first request.

    Args:
        protocol: PROTOCOL.
        name: the runner's name.
        version: the version of the runner, and of whatever else decides its answers.
        images: the type that it reads: float32 in [0, 1], or uint8, to which points are rounded.
        device: the device on which it computes.
        quantised: whether its model rounds to integers, even if the bundle's graph does not.
        batch: the most images that it takes at once.
        seconds: the longest that an answer may take.

    """

    protocol: Literal["edgeproof-judge/1"]
    name: Name
    version: Annotated[Text, Field(min_length=1, max_length=200)]
    images: Literal["float32", "uint8"] = "float32"
    device: Annotated[Text, Field(max_length=200)] = ""
    quantised: bool = False
    batch: Annotated[int, Field(gt=0, le=4096)] = Batching().largest
    seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0


class Refusal(Frozen):
    """An answer without logits. After 'memory', edgeproof sends fewer images; 'failed' ends the run."""

    error: Literal["memory", "failed"]
    message: Annotated[Text, Field(max_length=1000)] = ""


def hello(image: tuple[int, ...], classes: int) -> bytes:
    """Return the first frame for a judge: the protocol, the shape of an image (C, H, W), and the number of classes."""
    return json.dumps({"protocol": PROTOCOL, "image": list(image), "classes": classes}).encode()


def read_handshake(answer: bytes) -> Handshake:
    """Parse a judge's handshake.

    Raises:
        BadAnswer: the answer is not a handshake, or has another version of the protocol.

    """
    try:
        said = json.loads(answer)
        spoken = said.get("protocol") if isinstance(said, dict) else None
        if spoken != PROTOCOL and isinstance(spoken, str):
            raise BadAnswer(f"the judge speaks {shown(spoken.encode())}, and this edgeproof {PROTOCOL}", hint=SEE)
        return Handshake.model_validate(said)
    except ValidationError as error:
        raise BadAnswer(f"the judge's handshake is wrong: {first_fault(error)}", hint=SEE) from None
    except (ValueError, RecursionError):
        raise BadAnswer(f"the judge's handshake is no JSON: {shown(answer)}", hint=TO_STDERR) from None


def encode(x: Any, images: Literal["float32", "uint8"]) -> bytes:
    """Return images float32 [B, C, H, W] in [0, 1] as an npy array of the type that a judge reads."""
    array = to_levels(x).astype(np.uint8) if images == "uint8" else np.asarray(x, "<f4")
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def most_bytes(rows: int, classes: int) -> int:
    """Return the most bytes of an answer to `rows` images."""
    return NPY_HEADER + 4 * rows * classes


def decode(answer: bytes, rows: int, classes: int) -> Any:
    """Return the logits of an answer: float32 [rows, classes].

    Raises:
        BadAnswer: the answer is not such an array, or has too many or too few bytes.
        OutOfMemory: the judge reports that memory ran out.
        JudgeFault: the judge reports that it failed.

    """
    if answer.startswith(b"{"):
        raise _refused(answer)
    file = io.BytesIO(answer)
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise BadAnswer(f"the judge answers with npy {version[0]}.{version[1]}, not 1.0", hint=SEE)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except BadAnswer:
        raise
    except Exception:  # a header may raise whatever literal_eval, struct and dtype raise
        raise BadAnswer(f"the judge's answer is no npy array: {shown(answer)}", hint=TO_STDERR) from None
    if dtype != np.dtype("<f4") or (fortran and len(shape) > 1):
        order = ", in Fortran's order" if fortran else ""
        raise BadAnswer(f"the judge answers with {printable(str(dtype))}{order}, not float32 in C's order", hint=SEE)
    if shape != (rows, classes):
        raise BadAnswer(
            f"the judge answers with logits of shape {shape} to {rows} images of {classes} classes",
            hint=f"a row an image, a column a class; {SEE}",
        )
    body = answer[file.tell() :]
    if len(body) != 4 * rows * classes:
        raise BadAnswer(f"the judge's npy array has {len(body)} bytes of logits, not {4 * rows * classes}", hint=SEE)
    return np.frombuffer(body, "<f4").reshape(rows, classes).astype(np.float32)


def _refused(answer: bytes) -> EdgeproofError:
    try:
        refusal = Refusal.model_validate_json(answer)
    except ValidationError as error:
        return BadAnswer(f"the judge's refusal is wrong: {first_fault(error)}", hint=SEE)
    if refusal.error == "memory":
        return OutOfMemory(f"the judge ran out of memory: {refusal.message}", hint="a smaller --batch")
    return JudgeFault(f"the judge failed: {refusal.message}", hint="see what it needs; then --resume goes on")


def shown(data: bytes) -> str:
    """Return the beginning of unexpected bytes as printable text."""
    text = printable(data[:SHOWN].decode("ascii", "replace").replace("\ufffd", "?"))
    return repr(text + ("..." if len(data) > SHOWN else ""))

"""The protocol edgeproof-judge/1 for a judge. A runner needs only this file and NumPy.

`serve` answers batches until its stdin ends. Anything that the runner or a library prints to stdout goes to stderr.
"""

import io
import json
import os
import struct
import sys

import numpy as np

PROTOCOL = "edgeproof-judge/1"
LENGTH = struct.Struct("<Q")


def serve(open_runner, **handshake):
    """Answer the process that started this one.

    Args:
        open_runner: takes the shape of an image (C, H, W) and the number of classes K. It returns a function that maps
            images [B, C, H, W], float32 in [0, 1] or uint8, to logits [B, K].
        handshake: name and version; also images, device, quantised, batch and seconds, if they are not the default.

    """
    reads = sys.stdin.buffer
    writes = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # from here on, a print goes to stderr and is not taken for an answer

    if (first := _receive(reads)) is None:
        sys.exit("nobody asks: edgeproof verify --judge-command starts this program")
    hello = json.loads(first)
    answer = open_runner(tuple(hello["image"]), hello["classes"])
    _send(writes, json.dumps({"protocol": PROTOCOL, **handshake}).encode())
    while (question := _receive(reads)) is not None:
        try:
            logits = answer(np.load(io.BytesIO(question)))
        except MemoryError as error:  # edgeproof then sends fewer images
            _send(writes, json.dumps({"error": "memory", "message": str(error)[:1000]}).encode())
            continue
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(logits, "<f4"))
        _send(writes, file.getvalue())


def _receive(stream):
    """Return the contents of the next frame; None at the end."""
    prefix = stream.read(LENGTH.size)
    return stream.read(*LENGTH.unpack(prefix)) if len(prefix) == LENGTH.size else None


def _send(stream, data):
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()

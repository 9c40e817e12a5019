"""A judge that misbehaves: `stranger.py HOW [PIDS]`. It has no NumPy, so that it starts at once.

It answers by zeros for logits, so far as it answers. Into the file PIDS it writes its number, and those of what it
starts.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time

HOW = sys.argv[1]
PIDS = sys.argv[2] if len(sys.argv) > 2 else os.devnull
HELLO = {"protocol": "edgeproof-judge/1", "name": "stranger", "version": "1"}
if HOW in ("hangs", "half an answer, and waits"):
    HELLO["seconds"] = 0.5


def note(pid):
    with open(PIDS, "a") as file:
        print(pid, file=file)


def receive():
    prefix = sys.stdin.buffer.read(8)
    return sys.stdin.buffer.read(*struct.unpack("<Q", prefix)) if len(prefix) == 8 else None


def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def send(data):
    write(struct.pack("<Q", len(data)) + data)


def npy(shape, dtype="<f4", data=None, fortran=False, version=b"\x01\x00"):
    header = str({"descr": dtype, "fortran_order": fortran, "shape": tuple(shape)})
    header += " " * (117 - len(header)) + "\n"
    size = 4
    for side in shape:
        size *= side
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + (data or bytes(size))


def start(*words):
    note(subprocess.Popen(words).pid)


note(os.getpid())
if HOW == "noise":
    print("Loading the model, please wait ...", flush=True)
if HOW == "a line feed":
    write(b"\n")
if HOW == "ends at once":
    print("no such device", file=sys.stderr)
    print("\x1b[31mgiving up", file=sys.stderr)
    sys.exit(7)
if HOW == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if HOW == "leaves a child":
    start("sleep", "600")
hello = json.loads(receive())
if HOW == "another version":
    send(json.dumps(HELLO | {"protocol": "edgeproof-judge/2"}).encode())
elif HOW == "another key":
    send(json.dumps(HELLO | {"dtype": "uint8"}).encode())
elif HOW == "no name":
    send(json.dumps(HELLO | {"name": "../../x"}).encode())
elif HOW == "no JSON":
    send(b"ready")
elif HOW == "a list":
    send(b"[1]")
elif HOW == "a long handshake":
    send(json.dumps(HELLO | {"version": "1" * 5000}).encode())
elif HOW == "half a handshake":
    write(struct.pack("<Q", 200) + b"{")
    sys.exit(0)
elif HOW == "closes stdout":
    os.close(1)
    time.sleep(600)
else:
    send(json.dumps(HELLO).encode())
if HOW == "answers unasked":
    send(npy((60, 3)))

while (question := receive()) is not None:
    rows, classes = int(question.split(b"'shape': (")[1].split(b",")[0]), hello["classes"]
    if HOW == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif HOW == "a child holds stdout":
        start("sleep", "600")
        os._exit(3)
    elif HOW == "hangs":
        print("waiting for the bus", file=sys.stderr, flush=True)
        time.sleep(600)
    elif HOW == "half an answer":
        write(struct.pack("<Q", 128 + 4 * rows * classes) + npy((rows, classes))[:150])
        sys.exit(0)
    elif HOW == "half an answer, and waits":
        write(struct.pack("<Q", 128 + 4 * rows * classes) + npy((rows, classes))[:150])
        time.sleep(600)
    elif HOW == "an answer without end":
        while True:
            write(b"\xff" * 2**16)
    elif HOW == "cut npy":
        send(npy((rows, classes))[:-4])
    elif HOW == "longer npy":
        send(npy((rows, classes)) + bytes(4))
    elif HOW == "a row too few":
        send(npy((rows - 1, classes)))
    elif HOW == "a class too many":
        send(npy((rows, classes + 1)))
    elif HOW == "a shape of its own":
        send(npy((2**40, 2**40), data=bytes(4 * rows * classes)))
    elif HOW == "one number":
        send(npy((), data=bytes(4)))
    elif HOW == "doubles":
        send(npy((rows, classes), "<f8"))
    elif HOW == "objects":
        send(npy((rows, classes), "|O"))
    elif HOW == "big endian":
        send(npy((rows, classes), ">f4"))
    elif HOW == "columns first":
        send(npy((rows, classes), fortran=True))
    elif HOW == "npy 9":
        send(npy((rows, classes), version=b"\x09\x00"))
    elif HOW == "text":
        send(b"0.1 0.2 0.7")
    elif HOW == "empty":
        send(b"")
    elif HOW == "fails":
        send(b'{"error": "failed", "message": "no link to the board"}')
    elif HOW == "refuses otherwise":
        send(b'{"error": "tired"}')
    elif HOW == "prints":
        write(b"done\n")
        send(npy((rows, classes)))
    elif HOW == "floods stderr":
        for _ in range(5000):
            print("x" * 200, file=sys.stderr)
        send(npy((rows, classes)))
    elif HOW == "small":
        send(npy((rows, classes)) if rows <= 4 else b'{"error": "memory", "message": "4 fit"}')
    else:
        send(npy((rows, classes)))
if HOW in ("stays", "stubborn"):
    time.sleep(600)

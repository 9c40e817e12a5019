"""What goes over the pipes: each image as it is, or the byte that it is; and 10,000 mutations of what comes back."""

import io
import json

import numpy as np
import pytest

from runtime.errors import OutOfMemory
from runtime.external.protocol import PROTOCOL, decode, encode, hello, most_bytes, read_handshake
from runtime.images.uint8_grid import to_lattice
from tests.runtime.mutation import BYTES, TEXT, explore

ROWS, CLASSES = 4, 3


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read(question):
    return np.load(io.BytesIO(question))


def test_float_images_arrive_to_the_bit():
    x = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
    x.ravel()[:4] = 0, 1, np.nextafter(np.float32(0), np.float32(1)), np.nextafter(np.float32(1), np.float32(0))
    assert read(encode(x, "float32")).tobytes() == x.tobytes()


def test_every_stored_byte_arrives_as_that_byte():
    stored = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    question = read(encode(stored.astype(np.float32) / np.float32(255), "uint8"))
    assert question.dtype == np.uint8
    assert np.array_equal(question, stored)


@pytest.mark.parametrize("levels", [1, 8, 64])
def test_a_point_in_the_ball_of_stored_bytes_is_asked_at_the_level_that_evidence_keeps(levels):
    random, eps = np.random.default_rng(0), levels / 255
    clean = random.integers(0, 256, (64, 1, 8, 8)).astype(np.float32) / np.float32(255)
    step = random.uniform(-eps, eps, clean.shape) * random.choice([0.5, 1.0, 1 / levels], clean.shape)
    step[:32] = np.sign(step[:32]) * eps  # the corners of the ball
    x = np.clip(clean + step, 0, 1).astype(np.float32)
    asked, kept = read(encode(x, "uint8")), to_lattice(x, clean, eps)
    assert np.array_equal(asked, np.rint(255 * kept))
    assert np.abs(asked / 255 - clean.astype(np.float64)).max() <= eps + 1e-6


def test_a_judge_is_told_the_shape_of_an_image_and_the_number_of_classes():
    assert json.loads(hello((3, 32, 32), 10)) == {"protocol": PROTOCOL, "image": [3, 32, 32], "classes": 10}


def test_a_judge_may_say_its_protocol_name_and_version_alone():
    said = read_handshake(json.dumps({"protocol": PROTOCOL, "name": "a", "version": "1"}).encode())
    assert (said.images, said.batch, said.seconds, said.quantised) == ("float32", 64, 60.0, False)


def test_logits_arrive_to_the_bit_and_can_be_written_to():
    z = np.random.default_rng(0).normal(size=(ROWS, CLASSES)).astype(np.float32)
    found = decode(npy(z), ROWS, CLASSES)
    assert found.tobytes() == z.tobytes()
    assert found.flags.writeable
    assert len(npy(z)) <= most_bytes(ROWS, CLASSES)


def test_a_lack_of_memory_is_the_error_by_which_batches_are_halved():
    with pytest.raises(OutOfMemory, match="4 GB are used"):
        decode(b'{"error": "memory", "message": "4 GB are used"}', ROWS, CLASSES)


@pytest.fixture(params=[200, pytest.param(10_000, marks=pytest.mark.slow)], ids=["share", "all"])
def examples(request):
    return request.param


def test_a_mutated_answer_is_refused_or_has_a_row_an_image(examples):
    seeds = {"logits": npy(np.ones((ROWS, CLASSES), np.float32)), "refusal": b'{"error": "failed", "message": "x"}'}

    def check(name, data):
        z = decode(data, ROWS, CLASSES)
        assert (z.shape, z.dtype) == ((ROWS, CLASSES), np.float32)

    check("logits", seeds["logits"])
    assert explore(seeds, check, examples, (*TEXT, *BYTES))["refused"]


def test_a_mutated_handshake_is_refused_or_has_what_is_needed(examples):
    said = {"protocol": PROTOCOL, "name": "a", "version": "1", "images": "uint8", "batch": 8, "seconds": 2.5}

    def check(name, data):
        found = read_handshake(data)
        assert found.name
        assert found.images in ("float32", "uint8")
        assert 0 < found.batch <= 4096
        assert 0 < found.seconds <= 3600

    whole = json.dumps(said).encode()
    check("handshake", whole)
    assert explore({"handshake": whole}, check, examples, TEXT)["refused"]

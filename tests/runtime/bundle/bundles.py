"""The tiny bundle with a manifest that names its evaluation images by their digest, and its signature."""

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.bundle.manifest import EVALUATION, SIGNATURE
from runtime.bundle.signing import sign
from runtime.errors import BadData
from runtime.files import sha256
from runtime.images.npz import read_npz
from runtime.spec import DataRecord
from tests import tiny


def write_bundle(path, files, *, n, **changes):
    """Write `files` as a bundle; the manifest holds the digest of the evaluation images, zeros for bad ones."""
    record = DataRecord(name="tiny/test", n=n, sha256=digest(files[EVALUATION]))
    return tiny.write_bundle(path, files, n=n, **({"evaluation": record} | changes))


def digest(evaluation):
    try:
        return read_npz(evaluation, layout="nchw").sha256
    except BadData:
        return "0" * 64


def sign_bundle(path, key):
    """Sign what lies in a bundle."""
    digests = {file.name: sha256(file.read_bytes()) for file in path.iterdir() if file.name != SIGNATURE}
    (path / SIGNATURE).write_bytes(sign("tiny", digests, key))
    return path


def pem(key):
    """Return a public key as its file holds it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def change_a_graph(bundle):
    path = bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes().replace(b"logits", b"logitz"))


def add_a_file(bundle):
    (bundle / "more.bin").write_bytes(b"?")

"""Keys: a new pair, and files that hold none."""

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from runtime.bundle.signing import fingerprint, load_private_key, load_trust, new_key
from runtime.errors import BadInput, UsageFault
from tests.runtime.bundle.bundles import pem


def private_pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_new_keys_are_a_pair_and_the_private_one_is_its_owners_alone(tmp_path):
    made = new_key(tmp_path / "keys")
    private, trusted = load_private_key(tmp_path / "keys/private.pem"), load_trust(tmp_path / "keys/public.pem")
    assert made == fingerprint(private.public_key()) == next(iter(trusted.keys))
    assert stat.S_IMODE((tmp_path / "keys/private.pem").stat().st_mode) == 0o600
    with pytest.raises(UsageFault):
        new_key(tmp_path / "keys")


BAD_PRIVATE = {
    "nothing": (b"", "holds no private key"),
    "text": (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"),
    "public": (pem(ec.generate_private_key(ec.SECP256R1()).public_key()), "holds no private key"),
    "another curve": (private_pem(ec.generate_private_key(ec.SECP384R1())), "not on the curve P-256"),
    "another kind": (private_pem(ed25519.Ed25519PrivateKey.generate()), "not on the curve P-256"),
    "encrypted": (
        private_pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"secret")),
        "is encrypted",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_PRIVATE.values(), ids=BAD_PRIVATE)
def test_a_private_key_that_cannot_sign_is_refused(tmp_path, content, message):
    (tmp_path / "private.pem").write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        load_private_key(tmp_path / "private.pem")
    assert caught.value.hint


BAD_PUBLIC = {
    "nothing": (b"", "holds no public key"),
    "private": (private_pem(ec.generate_private_key(ec.SECP256R1())), "holds no public key"),
    "damaged": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is damaged"),
    "another curve": (pem(ec.generate_private_key(ec.SECP384R1()).public_key()), "not on the curve P-256"),
    "another kind": (pem(ed25519.Ed25519PrivateKey.generate().public_key()), "not on the curve P-256"),
}


@pytest.mark.parametrize(("content", "message"), BAD_PUBLIC.values(), ids=BAD_PUBLIC)
def test_a_public_key_that_cannot_be_trusted_is_refused(tmp_path, content, message):
    (tmp_path / "public.pem").write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        load_trust(tmp_path / "public.pem")
    assert caught.value.hint

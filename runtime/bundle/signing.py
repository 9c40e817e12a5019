"""Signatures of bundles: ECDSA P-256 in the format of OpenSSF model-signing, through `cryptography` alone.

signature.json is a Sigstore bundle with a DSSE envelope. The signature is over the pre-authentication encoding of an
in-toto statement, which lists every other file of the bundle with its SHA-256; docs/adr/0025 says why and how.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import Field

from runtime.bundle.dsse import Digests, Envelope, Exact, Foreign, StatementType, only, parse, seal
from runtime.bundle.manifest import SIGNATURE
from runtime.errors import BadInput, BadSignature, UsageFault
from runtime.files import new_directory, sha256, write_atomic
from runtime.spec import Digest, Text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PRIVATE, PUBLIC = "private.pem", "public.pem"
BundleType = Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
PredicateType = Literal["https://model_signing/signature/v1.0"]
KEY_HINT = "`edgeproof key new --out DIR` makes a pair: private.pem signs, public.pem is trusted"
SIGN_AGAIN = "ask whoever signed it for the bundle again; do not use this one"
REFUSED = partial(BadSignature, hint=SIGN_AGAIN)
PEM_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class Trust:
    """The public keys that a device trusts, by fingerprint, and the file that holds them."""

    path: Path
    keys: Mapping[str, ec.EllipticCurvePublicKey]


@dataclass(frozen=True)
class Signed:
    """The content of a verified signature: the fingerprint of its key, and the SHA-256 of every file by name."""

    key: str
    digests: Mapping[str, str]


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key in PEM, by which the format names the key."""
    return sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def new_key(out: Path) -> str:
    """Write a new key pair to a new directory: private.pem (mode 0600) and public.pem; return its fingerprint.

    Raises:
        UsageFault: `out` is not empty. An existing key is never overwritten, because updates need it.

    """
    if (out / PRIVATE).exists():
        raise UsageFault(
            f"{out} holds a key pair already",
            hint=f"name another --out. Without {PRIVATE} you cannot sign updates for devices that trust it",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with new_directory(out) as directory:
        write_atomic(directory / PRIVATE, private, mode=0o600)
        write_atomic(directory / PUBLIC, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return fingerprint(key.public_key())


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key.

    Raises:
        BadInput: the file holds no private key in PEM, or one that is encrypted or not on the curve P-256.

    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except TypeError:
        raise BadInput(f"{path} is encrypted", hint="openssl pkey -in KEY -out PLAIN decrypts it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput(f"{path} holds no private key in PEM", hint=KEY_HINT) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput(f"{path}: the key is not on the curve P-256", hint=KEY_HINT)
    return key


def load_trust(path: Path) -> Trust:
    """Read the trusted public keys in PEM: one or, while one key replaces another, several in a row.

    Raises:
        BadInput: the file holds no public key in PEM, or one that is not on the curve P-256.

    """
    blocks = PEM_KEY.findall(path.read_bytes())
    if not blocks:
        raise BadInput(f"{path} holds no public key in PEM", hint=KEY_HINT)
    keys = [_public_key(path, block) for block in blocks]
    return Trust(path, {fingerprint(key): key for key in keys})


def _public_key(path: Path, block: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput(f"{path}: a public key in it is damaged", hint=KEY_HINT) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput(f"{path}: a key in it is not on the curve P-256", hint=KEY_HINT)
    return key


def sign(name: str, digests: Mapping[str, str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the bytes of signature.json.

    Args:
        name: the model's name.
        digests: the SHA-256 in hexadecimal of every file except signature.json, by name.
        key: a private key on the curve P-256.

    """
    statement = {
        "_type": only(StatementType),
        "subject": [{"name": name, "digest": {"sha256": _root(digests)}}],
        "predicateType": only(PredicateType),
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest} for file, digest in sorted(digests.items())
            ],
        },
    }
    payload = json.dumps(statement, indent=2).encode()
    bundle = {
        "mediaType": only(BundleType),
        "verificationMaterial": {"publicKey": {"hint": fingerprint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": seal(payload, key),
    }
    return (json.dumps(bundle, indent=2) + "\n").encode()


def authenticate(where: Path, raw: bytes, trust: Trust) -> Signed:
    """Verify the bytes of a signature.json. The statement is parsed only after its signature was verified.

    Args:
        where: the file, for messages.
        raw: its bytes.
        trust: the keys of which one must have signed.

    Raises:
        BadSignature: the file is empty or malformed, names another key, has an invalid signature, or signs something
            other than a model.

    """
    bundle = _envelope(where, raw)
    hint = bundle.verification_material.public_key.hint
    key = trust.keys.get(hint)
    if key is None:
        raise BadSignature(
            f"{where} was made with another key, {hint[:16]}; "
            f"{trust.path} holds {', '.join(key[:16] for key in trust.keys)}",
            hint="trust that key only if you know whose it is",
        )
    payload = bundle.dsse_envelope.payload
    try:
        bundle.dsse_envelope.check(key)
    except InvalidSignature:
        raise BadSignature(f"{where}: the signature does not hold", hint=SIGN_AGAIN) from None
    statement = parse(_Statement, payload, f"{where} signs something else than a model", REFUSED)
    digests = {resource.name: resource.digest for resource in statement.predicate.resources}
    if len(digests) != len(statement.predicate.resources) or statement.subject[0].digest.sha256 != _root(digests):
        raise BadSignature(f"{where}: what it signs contradicts itself", hint=SIGN_AGAIN)
    return Signed(hint, digests)


def named_key(where: Path, raw: bytes) -> str:
    """Return the fingerprint of the key that a signature.json names. It is not verified, so it proves nothing.

    Raises:
        BadSignature: the file is empty or malformed.

    """
    return _envelope(where, raw).verification_material.public_key.hint


def _envelope(where: Path, raw: bytes) -> _SigstoreBundle:
    if not raw.strip():
        raise BadSignature(f"{where} is empty", hint=SIGN_AGAIN)
    return parse(_SigstoreBundle, raw, f"{where} is no signature", REFUSED)


def _root(digests: Mapping[str, str]) -> str:
    """Return the digest of all digests in the order of their names, which is the statement's subject."""
    return sha256(b"".join(bytes.fromhex(digest) for _, digest in sorted(digests.items())))


class _PublicKey(Foreign):
    hint: Text


class _VerificationMaterial(Foreign):
    public_key: _PublicKey


class _SigstoreBundle(Foreign):
    media_type: BundleType
    verification_material: _VerificationMaterial
    dsse_envelope: Envelope


class _Subject(Foreign):
    digest: Digests


class _Resource(Foreign):
    name: Exact
    algorithm: Literal["sha256"]
    digest: Digest


class _Predicate(Foreign):
    resources: tuple[_Resource, ...]


class _Statement(Foreign):
    type_: StatementType = Field(alias="_type")
    predicate_type: PredicateType
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate: _Predicate

"""DSSE envelopes (github.com/secure-systems-lab/dsse, v1.0.2) around in-toto statements: one signature, ECDSA P-256."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from runtime.spec import LONGEST_TEXT, Digest, first_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PayloadType = Literal["application/vnd.in-toto+json"]
StatementType = Literal["https://in-toto.io/Statement/v1"]
Exact = Annotated[str, Field(max_length=LONGEST_TEXT)]
"""A text that is only compared, exactly, and never shown."""


def _base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError("not base64") from None


Base64 = Annotated[bytes, BeforeValidator(_base64)]


class Foreign(BaseModel):
    """A record in a format that edgeproof does not define; other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


Record = TypeVar("Record", bound=Foreign)


def parse(record: type[Record], raw: bytes, fault: str, refused: Callable[[str], Exception]) -> Record:
    """Parse a record from JSON.

    Args:
        record: the record's type.
        raw: the JSON.
        fault: the beginning of the message if parsing fails; the first error is added to it.
        refused: makes the exception of a message.

    """
    try:
        return record.model_validate_json(raw)
    except ValidationError as error:
        raise refused(f"{fault}: {first_fault(error)}") from None


class Digests(Foreign):
    """Digests of one file in in-toto's format; those other than SHA-256 are ignored."""

    sha256: Digest


class Signature(Foreign):
    """A signature. `keyid` only says which key to try."""

    sig: Base64
    keyid: Exact = ""


class Envelope(Foreign):
    """A payload with exactly one signature."""

    payload: Base64
    payload_type: PayloadType
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=1)]

    def check(self, key: EllipticCurvePublicKey) -> None:
        """Raise `InvalidSignature` unless this key signed the payload."""
        key.verify(self.signatures[0].sig, _encoded(self.payload), ec.ECDSA(SHA256()))


def seal(payload: bytes, key: EllipticCurvePrivateKey, keyid: str = "") -> dict[str, Any]:
    """Return the envelope of a payload, signed with a key on the curve P-256."""
    signature = key.sign(_encoded(payload), ec.ECDSA(SHA256()))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": only(PayloadType),
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": keyid}],
    }


def only(literal: Any) -> str:
    """Return the one value that a Literal allows."""
    (value,) = get_args(literal)
    return str(value)


def _encoded(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload (protocol.md)."""
    payload_type = only(PayloadType).encode()
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type, len(payload), payload)

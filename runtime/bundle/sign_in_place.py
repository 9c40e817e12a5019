"""Signs an existing bundle: it writes signature.json, and changes no other file."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from runtime.bundle.manifest import SIGNATURE, Manifest
from runtime.bundle.model_card import MODEL_CARD, model_card
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.signing import Trust, fingerprint, named_key, sign
from runtime.errors import BadBundle, BadSignature
from runtime.files import write_atomic
from runtime.terminal.log import log

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LEFTOVER = f".{SIGNATURE}.*"
"""Temporary files that a power cut may leave (`files.write_atomic`); a bundle that has one is refused."""


def sign_in_place(path: Path, key: EllipticCurvePrivateKey, trust: Trust | None = None) -> Manifest:
    """Check and sign a bundle, and return its manifest.

    It signs the bytes that it checked, even if the files change meanwhile. It replaces an existing signature only
    after verifying it. If this key has already signed the bundle, nothing changes.

    Args:
        path: the bundle's directory.
        key: the private key that signs.
        trust: the keys of which one must have signed the bundle before. None: no other key has signed it.

    Raises:
        BadSignature: another key has signed it that `trust` does not have, or its signature is not valid.
        BadBundle: its model card differs from its manifest.
        BadBundle, BadModel: it is damaged, or is not a bundle; see `open_bundle`.

    """
    for leftover in path.glob(LEFTOVER):
        leftover.unlink()
    bundle = open_bundle(path, trust)
    if _signed_already(bundle, key, trust):
        log.info(f"{path} is signed with this key already")
    else:
        _check_card(bundle)
        digests = {name: copy.sha256 for name, copy in bundle.contents.items() if name != SIGNATURE}
        write_atomic(path / SIGNATURE, sign(bundle.manifest.name, digests, key))
    return bundle.manifest


def _check_card(bundle: Bundle) -> None:
    """Raise `BadBundle` if the bundle's model card differs from the card that the manifest gives."""
    if MODEL_CARD not in bundle.contents:
        return
    card, own = bundle.read(MODEL_CARD), model_card(bundle.manifest).encode()
    if card == own:
        return
    lines = zip_longest(card.split(b"\n"), own.split(b"\n"))
    line = next(number for number, (stands, ours) in enumerate(lines, 1) if stands != ours)
    raise BadBundle(
        f"{bundle.path / MODEL_CARD} is not what this manifest says in words, from line {line} on",
        hint="it was edited, or written by another version; `export --key` or `pack --key` writes and signs it anew",
    )


def _signed_already(bundle: Bundle, key: EllipticCurvePrivateKey, trust: Trust | None) -> bool:
    """Return whether this key has signed the bundle; if so, verify the signature.

    Raises:
        BadSignature: another key has signed it and there is no `trust`, or this key's signature is not valid.

    """
    if SIGNATURE not in bundle.contents:
        return False
    own, where = fingerprint(key.public_key()), bundle.path / SIGNATURE
    by = named_key(where, bundle.read(SIGNATURE))
    if by == own:
        open_bundle(bundle.path, Trust(where, {own: key.public_key()}))
        return True
    if trust is None:
        raise BadSignature(
            f"{bundle.path} is signed with another key, {by[:16]}",
            hint="--trust PUBLIC.pem checks that signature before yours takes its place",
        )
    return False

"""Signing a bundle that lies there: signature.json is written, every other file stays what it was."""

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
"""What a power cut may leave of a signature (`files.write_atomic`), for which the bundle would be refused."""


def sign_in_place(path: Path, key: EllipticCurvePrivateKey, trust: Trust | None = None) -> Manifest:
    """Sign a bundle that is whole, and return its manifest.

    What is signed are the bytes that were checked, whatever becomes of the files.
    Nothing that a signature holds for is signed unseen: a bundle that carries one is signed anew only if it holds.
    One that this key has signed already stays as it is.

    Args:
        path: of the bundle.
        key: signs it.
        trust: the keys, one of which must have signed it before. None: nobody did.

    Raises:
        BadSignature: it is signed with another key, which `trust` does not name, or a signature does not hold.
        BadBundle: its card is not what its manifest says in words.
        BadBundle, BadModel: it is damaged, or none; see `open_bundle`.

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
    """Raise `BadBundle` where the card that stands is not what the manifest says in words."""
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
    """Return whether this key has signed it, and its signature holds.

    Raises:
        BadSignature: another key has, whose signature was not checked.

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

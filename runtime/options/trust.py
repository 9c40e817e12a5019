"""The options for signing, trust and accepted versions, and how commands use them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from runtime.bundle.opening import Bundle
    from runtime.bundle.signing import Trust

Command = TypeVar("Command", bound=Callable[..., Any])


def _load_trust(ctx: click.Context, param: click.Parameter, value: Path | None) -> Trust | None:
    from runtime.bundle.signing import load_trust

    return None if value is None else load_trust(value)


def _load_key(ctx: click.Context, param: click.Parameter, value: Path | None) -> EllipticCurvePrivateKey | None:
    from runtime.bundle.signing import load_private_key

    return None if value is None else load_private_key(value)


_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
_key_option = partial(click.option, "--key", type=_PEM, callback=_load_key)
_SIGNS = "Private key (PEM) to sign with, as `edgeproof key new` makes it."
key_option = _key_option(help=f"{_SIGNS}  [default: do not sign]")
needed_key_option = _key_option(required=True, help=_SIGNS)
version_option = click.option(
    "--version",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Version of the bundle; a device refuses a lower one than it has accepted.",
)
_trust_option = partial(click.option, "--trust", type=_PEM, callback=_load_trust)
_SIGNED = "Public key (PEM) that must have signed the bundle."
trust_option = _trust_option(help=f"{_SIGNED}  [default: check only the digests]")
trust_before_option = _trust_option(
    help=f"{_SIGNED}  [default: digests alone are checked, which refuses a bundle signed with another key]"
)
state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="EDGEPROOF_STATE",
    show_envvar=True,
    help="Directory for this device's state: TensorRT engines, and the last accepted version of each bundle, so that "
    "an older one is refused.",
)
allow_rollback_option = click.option(
    "--allow-rollback", is_flag=True, help="Accept an older version than the last accepted one."
)
allow_unsigned_option = click.option(
    "--allow-unsigned",
    is_flag=True,
    help="Accept a bundle whose signature is not checked, although the last accepted one was signed.",
)


attest_option = click.option(
    "--attest",
    "attest_key",
    type=_PEM,
    callback=_load_key,
    help="Private key (PEM) that signs the verdict: attestation.json, an in-toto statement, in the run directory.",
)
attestation_option = click.option(
    "--attestation", type=_PEM, help="Signed verdict, as `edgeproof verify --attest` writes it."
)


def written(out: Path, key: EllipticCurvePrivateKey | None) -> str:
    """Return in words where a bundle was written, and with which key it was signed."""
    from runtime.bundle.signing import fingerprint

    return f"bundle: {out}" + (f", signed with key {fingerprint(key.public_key())}" if key else "")


def acceptance_options(command: Command) -> Command:
    """Add the options for `open_acceptable`: trust, state, allow_rollback, allow_unsigned."""
    for option in (allow_unsigned_option, allow_rollback_option, state_option, trust_option):
        command = option(command)
    return command


def open_acceptable(
    path: Path, trust: Trust | None, state: Path | None, *, allow_rollback: bool, allow_unsigned: bool
) -> Bundle:
    """Open a bundle, and check that it may follow what this device has accepted; record nothing.

    Raises:
        BadBundle: see `open_bundle`.
        BadSignature, Rollback, BadInput: see `check_acceptable`.

    """
    from runtime.bundle.opening import open_bundle
    from runtime.bundle.rollback import check_acceptable

    bundle = open_bundle(path, trust)
    if state is not None:
        check_acceptable(state, bundle, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned)
    return bundle


@contextlib.contextmanager
def accept_what_passes(bundle: Bundle, state: Path | None, *, allow_rollback: bool) -> Iterator[None]:
    """Record a bundle as accepted if the block, which judges it, exits the command with 0.

    Args:
        bundle: the judged bundle, which `check_acceptable` has passed.
        state: the directory that records what was accepted; None records nothing.
        allow_rollback: accept an older version.

    Raises:
        Rollback: a newer version was accepted meanwhile.

    """
    from runtime.bundle.rollback import accept, state_lock

    try:
        yield
    except click.exceptions.Exit as done:
        if state is not None and done.exit_code == 0:
            with state_lock(state):
                accept(state, bundle, allow_rollback=allow_rollback)
        raise

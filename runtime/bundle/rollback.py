"""Rollback protection: a file records the version of each model that the device accepted last.

The file is replaced atomically, and only under a lock, so that two processes cannot undo each other's update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from runtime.bundle.manifest import MANIFEST
from runtime.errors import BadInput, BadSignature, Rollback
from runtime.files import remove_half_written, sha256, write_atomic
from runtime.locks import wait_for_lock
from runtime.spec import Digest, Frozen, Name, first_fault, to_json

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runtime.bundle.opening import Bundle

ACCEPTED = "accepted.json"
LOCK = "accepted.lock"


class Accepted(Frozen):
    """The bundle that was accepted last under one name."""

    version: Annotated[int, Field(ge=1)]
    manifest_sha256: Digest
    authenticated: bool


class State(Frozen):
    """accepted.json: the bundles that were accepted last, by name."""

    schema_: Literal["edgeproof.state/1"] = Field(alias="schema", default="edgeproof.state/1")
    accepted: dict[Name, Accepted] = Field(default_factory=dict)


def state_lock(directory: Path) -> AbstractContextManager[None]:
    """Hold the lock of a state directory; see `wait_for_lock`."""
    return wait_for_lock(directory / LOCK, "what was accepted here")


def read_state(directory: Path) -> State:
    """Return the record of accepted bundles, which is empty if there is no file yet.

    Raises:
        BadInput: the file is damaged.

    """
    path = directory / ACCEPTED
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return State()
    except ValidationError as error:
        raise BadInput(
            f"{path}: {first_fault(error)}", hint="remove it only if this device may go back to any version"
        ) from None


def check_acceptable(
    directory: Path, bundle: Bundle, *, allow_rollback: bool = False, allow_unsigned: bool = False
) -> None:
    """Refuse a bundle that may not replace the one accepted last under its name.

    Raises:
        BadSignature: see `check_authenticated`; never with `allow_unsigned`.
        Rollback: see `check_not_older`; never with `allow_rollback`.
        BadInput: see `read_state`.

    """
    state = read_state(directory)
    if not allow_unsigned:
        check_authenticated(state, bundle)
    if not allow_rollback:
        check_not_older(state, bundle)


def check_not_older(state: State, bundle: Bundle) -> None:
    """Refuse a bundle that would be a rollback.

    Raises:
        Rollback: a newer version was accepted under this name, or this version with other content.

    """
    last, manifest = state.accepted.get(bundle.manifest.name), bundle.manifest
    if last is None:
        return
    if manifest.version < last.version:
        unproven = ", which was not authenticated" if bundle.signed_by and not last.authenticated else ""
        raise Rollback(
            f"{bundle.path} is {manifest.name} version {manifest.version}; version {last.version} was accepted here"
            f"{unproven}",
            hint="to go back on purpose, add --allow-rollback",
        )
    if manifest.version == last.version and _record(bundle).manifest_sha256 != last.manifest_sha256:
        raise Rollback(
            f"{bundle.path} is another {manifest.name} version {manifest.version} than the one accepted here",
            hint="export it with a higher --version, or accept it with --allow-rollback",
        )


def check_authenticated(state: State, bundle: Bundle) -> None:
    """Refuse a bundle whose signature was not checked if it would replace one whose signature was.

    Raises:
        BadSignature: the bundle accepted last under this name was authenticated, and this one was not.

    """
    last = state.accepted.get(bundle.manifest.name)
    if last is not None and last.authenticated and not bundle.signed_by:
        raise BadSignature(
            f"a signed {bundle.manifest.name} was accepted here, and {bundle.path} was not authenticated",
            hint="check its signature with --trust PUBLIC.pem, or accept it with --allow-unsigned",
        )


def accept(directory: Path, bundle: Bundle, *, allow_rollback: bool = False) -> None:
    """Record a bundle as the one accepted last. The caller holds `state_lock`.

    A bundle that was not authenticated never replaces the record of one that was: anybody could have numbered it.

    Raises:
        Rollback: see `check_not_older`; never with `allow_rollback`.

    """
    remove_half_written(directory, ACCEPTED)
    state = read_state(directory)
    if not allow_rollback:
        check_not_older(state, bundle)
    last, new = state.accepted.get(bundle.manifest.name), _record(bundle)
    if new == last or (last is not None and last.authenticated and not new.authenticated):
        return
    write_atomic(directory / ACCEPTED, to_json(State(accepted={**state.accepted, bundle.manifest.name: new})))


def _record(bundle: Bundle) -> Accepted:
    return Accepted(
        version=bundle.manifest.version,
        manifest_sha256=sha256(bundle.read(MANIFEST)),
        authenticated=bundle.signed_by is not None,
    )

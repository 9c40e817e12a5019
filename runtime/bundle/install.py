"""Installs a bundle on a device: one directory per model, switched atomically, with the previous bundle kept.

DIR/versions/NAME-N-DIGEST   complete bundles, each written under a temporary name and renamed
DIR/current                  a link to the bundle in use
DIR/previous                 a link to the bundle before it
DIR/accepted.json            the versions accepted, unless the state is kept elsewhere
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from runtime.bundle.manifest import MANIFEST
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.rollback import accept, check_acceptable, state_lock
from runtime.errors import BadInput, EdgeproofError
from runtime.files import new_directory, sha256, sync_directory, write_atomic
from runtime.locks import wait_for_lock

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS, CURRENT, PREVIOUS = "versions", "current", "previous"
LOCK = "install.lock"


def install(
    bundle: Bundle, to: Path, *, state: Path, allow_rollback: bool = False, allow_unsigned: bool = False
) -> Path:
    """Make an opened bundle the current one of an installation, and return the bundle's directory there.

    Whenever the power fails, `current` is either the old bundle or the new one, complete, and the recorded version is
    never older than `current`. Installing again finishes an interrupted installation.

    Args:
        bundle: an opened bundle; the bytes that were checked are written.
        to: the installation's directory, for one model.
        state: the directory that records what was accepted.
        allow_rollback: accept an older version, or another bundle of the same version.
        allow_unsigned: accept a bundle that was not authenticated after one that was.

    Raises:
        BadInput: `to` holds another model, or is not an installation.
        BadSignature: the bundle was not authenticated, and the one accepted last was.
        Rollback: the bundle is older than what was accepted.
        MissingEnvironment: `to` cannot be written to.

    """
    name = bundle.manifest.name
    with wait_for_lock(to / LOCK, f"the installation in {to}"), state_lock(state):
        before = _linked(to / CURRENT)
        if before is not None and before.rsplit("-", 2)[0] != name:
            raise BadInput(f"{to} holds another model, {before}", hint="give every model its own --to")
        check_acceptable(state, bundle, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned)
        target = to / VERSIONS / f"{name}-{bundle.manifest.version}-{sha256(bundle.read(MANIFEST))[:12]}"
        _write(bundle, target)
        accept(state, bundle, allow_rollback=allow_rollback)
        if before not in (None, target.name):
            _link(to / PREVIOUS, before)
        _link(to / CURRENT, target.name)
        _prune(to)
    return target


def _linked(link: Path) -> str | None:
    """Return the name in VERSIONS to which a link points; None if there is no link yet."""
    if not link.is_symlink():
        if link.exists():
            raise BadInput(f"{link} is not a link that edgeproof made", hint="choose another --to")
        return None
    return link.readlink().name


def _write(bundle: Bundle, target: Path) -> None:
    if target.exists():
        try:
            if open_bundle(target).contents == bundle.contents:
                return
        except EdgeproofError:
            pass  # it is damaged, and replaced
        shutil.rmtree(target)
    with new_directory(target) as directory:
        for name, data in bundle.contents.items():
            write_atomic(directory / name, data.read())


def _link(link: Path, name: str | None) -> None:
    """Point a link to a name in VERSIONS, atomically."""
    beside = link.with_name(f".{link.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(f"{VERSIONS}/{name}")
    try:
        beside.replace(link)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(link.parent)


def _prune(to: Path) -> None:
    """Remove the versions to which no link points, and what an interrupted installation left."""
    kept = {_linked(to / CURRENT), _linked(to / PREVIOUS)}
    for path in (to / VERSIONS).iterdir():
        if path.name not in kept and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)

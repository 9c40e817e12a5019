"""Fetches bundles from the Hub and pushes them to it, through huggingface_hub with its token, endpoint and settings.

No text from a server is shown: requests contain the token, and a server may send it back.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from runtime.bundle.manifest import MANIFEST, OTHER_MAKE, SIGNATURE, Manifest
from runtime.bundle.model_card import MODEL_CARD
from runtime.bundle.opening import LARGEST
from runtime.errors import BadBundle, BadInput, MissingEnvironment, missing_extra
from runtime.hub.place import SCHEME, HubPlace
from runtime.spec import first_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from runtime.bundle.opening import Bundle

README = "README.md"
COMMIT = re.compile(r"[0-9a-f]{40}")
OFFLINE = "unset HF_HUB_OFFLINE, or name a bundle on this disk"
REASONS = {
    401: "it asks for a token: set HF_TOKEN, or `hf auth login`",
    403: "the token may not do this",
    404: "there is no such repository, revision or file, or the token may not see it",
    429: "too many requests: wait a while",
}
"""What an answer of the server means, by its status."""
TRANSPORT = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "huggingface_hub"}
"""Packages whose errors mean that the Hub was not reached or refused a request."""


def fetch(place: HubPlace, to: Path) -> HubPlace:
    """Fetch a bundle from the Hub into the directory `to`, and return the place with its commit.

    It fetches the manifest, the files that it lists, and the signature. `open_bundle` checks their digests later.

    Args:
        place: on the Hub.
        to: the directory to make.

    Raises:
        BadBundle: the manifest is missing or not valid, or a file is missing or of another size.
        BadInput: the Hub refuses, or names another commit than the requested one.
        MissingEnvironment: the Hub cannot be reached, or the extra is not installed.

    """
    api = _library().HfApi()
    with tempfile.TemporaryDirectory(prefix="edgeproof-hub-") as scratch, _told(place):
        info = api.model_info(place.repository, revision=place.revision, files_metadata=True)
        commit, sizes = info.sha or "", {each.rfilename: each.size for each in info.siblings or ()}
        if not COMMIT.fullmatch(commit):
            raise BadInput(
                f"{place}: the server names no commit", hint="the server does not answer as the Hugging Face Hub does"
            )
        if COMMIT.fullmatch(place.revision or "") and commit != place.revision:
            raise BadInput(
                f"{place}: the server names another commit",
                hint="the server does not answer as the Hugging Face Hub does",
            )
        there = HubPlace(place.repository, commit)

        def download(name: str) -> Path:
            return Path(api.hf_hub_download(place.repository, name, revision=commit, local_dir=scratch))

        _check_sizes(there, sizes, {MANIFEST: None})
        manifest = _parse(there, download(MANIFEST).read_bytes())
        signature = {SIGNATURE: None} if SIGNATURE in sizes else {}
        wanted = {**{name: entry.size for name, entry in manifest.files.items()}, MANIFEST: None, **signature}
        _check_sizes(there, sizes, wanted)
        to.mkdir(parents=True)
        for name in wanted:
            shutil.copyfile(download(name), to / name)
    return there


def push(bundle: Bundle, place: HubPlace, *, private: bool = False) -> HubPlace:
    """Push an opened bundle to the Hub in one commit, and return the place with that commit.

    It sends the bytes that were checked. The card becomes the repository's page. Other files of the repository stay,
    except the signature of an earlier bundle, which is deleted.

    Raises:
        BadInput: the Hub refuses, as it does if the revision is not a branch.
        MissingEnvironment: the Hub cannot be reached, or the extra is not installed.

    """
    library, files = _library(), {name: bundle.read(name) for name in bundle.contents}
    api = library.HfApi()
    card = {README: files[MODEL_CARD]} if MODEL_CARD in files else {}
    with _told(place):
        api.create_repo(place.repository, private=private, exist_ok=True)
        stale = SIGNATURE not in files and api.file_exists(place.repository, SIGNATURE, revision=place.revision)
        done = api.create_commit(
            place.repository,
            [
                *(library.CommitOperationAdd(name, data) for name, data in {**files, **card}.items()),
                *([library.CommitOperationDelete(SIGNATURE)] if stale else []),
            ],
            commit_message=f"{bundle.manifest.name} version {bundle.manifest.version}",
            revision=place.revision,
        )
    return HubPlace(place.repository, done.oid)


def _library() -> ModuleType:
    """Return huggingface_hub, with its progress bars turned off."""
    try:
        import huggingface_hub  # an extra
        import huggingface_hub.utils as library_utils
    except ImportError as error:
        raise missing_extra(SCHEME, ("hub",), error) from None
    library_utils.disable_progress_bars()  # type: ignore[attr-defined]
    return huggingface_hub


def _check_sizes(place: HubPlace, sizes: Mapping[str, int | None], wanted: Mapping[str, int | None]) -> None:
    """Refuse, before fetching, a file that is missing, too large, or of another size than the manifest says."""
    for name, size in wanted.items():
        if name not in sizes:
            what = f"{place} is no bundle" if name == MANIFEST else f"{place} is not complete"
            raise BadBundle(f"{what}: it has no {name}", hint="`edgeproof push` puts a bundle there")
        its = sizes[name]
        if its is None or (its > LARGEST if size is None else its != size):
            raise BadBundle(f"{place}: {name} has {its} bytes, not {size or f'at most {LARGEST}'}", hint=OTHER_MAKE)


def _parse(place: HubPlace, raw: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise BadBundle(f"{place}: {MANIFEST}: {first_fault(error)}", hint=OTHER_MAKE) from None


@contextlib.contextmanager
def _told(place: HubPlace) -> Iterator[None]:
    """Turn errors of huggingface_hub and its transport into typed errors, without their texts."""
    try:
        yield
    except Exception as error:
        told = next((each for each in (error, error.__cause__) if _of_transport(each)), None)
        if told is None:
            raise
        _tell(place, told)


def _of_transport(error: BaseException | None) -> bool:
    return bool({kind.__module__.partition(".")[0] for kind in type(error).__mro__} & TRANSPORT)


def _tell(place: HubPlace, error: BaseException) -> NoReturn:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and status < 500:
        reason = REASONS.get(status, "see its status page")
        raise BadInput(f"{place}: the Hub refused with status {status}", hint=reason) from None
    if type(error).__name__ == "OfflineModeIsEnabled":
        raise MissingEnvironment(
            f"{place} cannot be reached: huggingface_hub is set to offline", hint=OFFLINE
        ) from None
    what = f"the Hub answered with status {status}" if status else f"the Hub was not reached ({type(error).__name__})"
    hint = "see whether this machine has a network; HF_ENDPOINT names the Hub"
    raise MissingEnvironment(f"{place}: {what}", hint=hint) from None

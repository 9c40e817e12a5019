"""The evaluation set that `--data` names: an .npz, an image folder, or a set known by name."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import UsageFault, missing_extra
from runtime.images.classes import order_in_words
from runtime.images.folder import read_folder
from runtime.images.image_set import DATA_ROOT, ImageSet, Layout
from runtime.images.npz import read_npz
from runtime.images.store import StoredImages
from runtime.images.unlinked_file import LARGE
from runtime.progress import log

if TYPE_CHECKING:
    from runtime.images.preprocessing import Preprocessing

DATASETS_GROUP = "edgeproof.datasets"


def find_images(
    data: str,
    *,
    root: Path = DATA_ROOT,
    layout: Layout | None = None,
    channels: int | None = None,
    preprocessing: Preprocessing | None = None,
    classes: tuple[str, ...] | None = None,
    option: str = "--data",
) -> ImageSet:
    """Read the images that an option names: a known name, a folder or an .npz.

    Args:
        data: a name registered under the entry-point group `edgeproof.datasets`, or a path.
        root: where a set known by name lies, or is downloaded to.
        layout: see `read_npz`.
        channels: see `Pictures`, of a folder.
        preprocessing: see `Pictures`, of a folder; arrays stay as they are.
        classes: the model's, which labels number then: see `ImageSet.numbered`; by default the set's own.
        option: what named them, for the message.

    Raises:
        UsageFault: neither a known name nor a path that exists.
        BadData: see `read_npz`, `read_folder` and `ImageSet.numbered`.
        MissingEnvironment: a known name whose extra is not installed.

    """
    images = _found(data, root, layout, channels, preprocessing, option)
    return images if classes is None else images.numbered(classes)


def _found(
    data: str,
    root: Path,
    layout: Layout | None,
    channels: int | None,
    preprocessing: Preprocessing | None,
    option: str,
) -> ImageSet:
    path = Path(data)
    known = {entry.name: entry for entry in entry_points(group=DATASETS_GROUP)}
    if data in known:
        if path.exists():
            log(f"{option} {data} is the set known by that name; the path is ./{data}")
        return _by_name(known[data], root)
    if data and path.is_dir():
        found = read_folder(path, channels=channels, preprocessing=preprocessing, decoded=False)
        assert found.classes is not None
        log(f"{data}: {order_in_words(found.classes)}")
        images = StoredImages.decoded(found.images) if found.images.size >= LARGE else np.asarray(found.images)
        return replace(found, images=images)
    if path.is_file():
        return read_npz(path, layout=layout)
    raise UsageFault(
        f"{option} {data}: no such file, folder or known set",
        hint=f"known: {', '.join(sorted(known)) or 'none'}",
    )


def _by_name(entry: Any, root: Path) -> ImageSet:
    try:
        read = entry.load()
    except ImportError as error:
        raise missing_extra(f"the data set {entry.name}", tuple(entry.extras), error) from error
    images: ImageSet = read(root)
    return images

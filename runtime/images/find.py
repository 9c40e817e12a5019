"""Finds the images that `--data` names: an .npz, an image folder, or a set known by name."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import UsageFault, missing_extra
from runtime.images import DATA_ROOT
from runtime.images.classes import order_in_words
from runtime.images.folder import read_folder
from runtime.images.npz import read_npz
from runtime.images.store import decoded
from runtime.images.unlinked_file import LARGE
from runtime.terminal.log import log
from runtime.words import did_you_mean

if TYPE_CHECKING:
    from runtime.images.image_set import ImageSet, Layout
    from runtime.images.preprocessing import Preprocessing

DATASETS_GROUP = "edgeproof.datasets"


def find_images(
    data: str,
    *,
    root: Path = DATA_ROOT,
    layout: Layout | None = None,
    channels: int | None = None,
    preprocessing: Preprocessing | None = None,
    size: Preprocessing | None = None,
    classes: tuple[str, ...] | None = None,
    option: str = "--data",
    ordered: bool = True,
) -> ImageSet:
    """Read the images that an option names: a known name, a folder or an .npz.

    Args:
        data: a name registered under the entry-point group `edgeproof.datasets`, or a path.
        root: the directory of sets known by name, to which they are also downloaded.
        layout: see `read_npz`.
        channels: of a folder; see `Pictures`.
        preprocessing: of a folder; see `Pictures`. Arrays stay as they are.
        size: like `preprocessing`, but refused if the images are not in a folder.
        classes: the model's classes, which the labels then number (`ImageSet.numbered`); by default the set's own.
        option: the option that named the images, for messages.
        ordered: whether to report the order of a folder's classes, because it decides which logit each one is.

    Raises:
        UsageFault: `data` is neither a known name nor an existing path; or `size` is given without a folder.
        BadData: see `read_npz`, `read_folder` and `ImageSet.numbered`.
        MissingEnvironment: the extra of a known set is not installed.

    """
    path = Path(data)
    known = {entry.name: entry for entry in entry_points(group=DATASETS_GROUP)}
    if data and data not in known and path.is_dir():
        images = _folder(path, channels, size or preprocessing, ordered)
    elif size:
        raise UsageFault(
            f"{option} {data} is not an image folder, so its pictures cannot be resized", hint="leave --size out"
        )
    elif data in known:
        if path.exists():
            log.warning(f"{option} {data} means the known set of that name; for the path write ./{data}")
        images = _by_name(known[data], root)
    elif path.is_file():
        images = read_npz(path, layout=layout)
    else:
        raise UsageFault(
            f"{option} {data}: no such file, folder or known set{did_you_mean(data, known)}",
            hint=f"known: {', '.join(sorted(known)) or 'none'}",
        )
    return images if classes is None else images.numbered(classes)


def _folder(path: Path, channels: int | None, preprocessing: Preprocessing | None, ordered: bool) -> ImageSet:
    found = read_folder(path, channels=channels, preprocessing=preprocessing, decoded=False)
    assert found.classes is not None
    if ordered:
        log.info(f"{path}: {order_in_words(found.classes)}")
    images = decoded(found.images) if found.images.size >= LARGE else np.asarray(found.images)
    return replace(found, images=images)


def _by_name(entry: Any, root: Path) -> ImageSet:
    try:
        read = entry.load()
    except ImportError as error:
        raise missing_extra(f"the data set {entry.name}", tuple(entry.extras), error) from error
    images: ImageSet = read(root)
    return images

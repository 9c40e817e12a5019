"""Image sets for training, by name or by path, and their hold-out part."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torchvision import datasets

from pipeline.memory import free_memory
from runtime.errors import BadData
from runtime.files import sha256
from runtime.images import DATA_ROOT
from runtime.images.classes import listed, numbers
from runtime.images.find import DATASETS_GROUP
from runtime.images.folder import read_folder
from runtime.images.image_set import ImageSet
from runtime.images.npz import read_npz
from runtime.images.preprocessing import Preprocessing
from runtime.words import did_you_mean

EMBEDDED = Path(__file__).parent / "embedded"
CPU = torch.device("cpu")
DECODED_SHARE = 0.5
"""Largest share of the free memory for a decoded training set."""


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one data set, with labels for the same classes."""

    train: ImageSet
    test: ImageSet

    def __post_init__(self) -> None:
        """Check that both splits have images of one shape and the same classes.

        Raises:
            BadData: they do not, or there is only one class.
        """
        if len(self.classes) < 2:
            raise BadData(f"{self.train.name} has {len(self.classes)} class", hint="a classifier needs at least two")
        channels, height, width = self.train.images.shape[1:]
        self.test.check_fits((channels, height, width), self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, in the order of their numbers."""
        assert self.train.classes is not None
        return self.train.classes

    def numbered(self, classes: tuple[str, ...]) -> Dataset:
        """Return the set with labels in the order of a network's classes; see `ImageSet.numbered`."""
        return Dataset(self.train.numbered(classes), self.test.numbered(classes))


@dataclass(frozen=True)
class KnownSet:
    """A data set with a name, which is an entry point of `edgeproof.datasets`. Calling it returns its test images.

    Args:
        load: reads the set from a directory, or downloads it there.

    """

    load: Callable[[Path], Dataset]

    def __call__(self, root: Path) -> ImageSet:
        """Return the test images."""
        return self.load(root).test


FASHION_MINI_SHA256 = "e8c1a390a6ec608e38ed1e89a0da75d0bd395398b7e8068a3982f86b28b5d0d5"
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PARTS = ("images", "labels", "ids")


def _fashion_mini(root: Path) -> Dataset:
    """Load the embedded 10,000 training and 2,000 test images of Fashion-MNIST; `root` is not used.

    Raises:
        BadData: the file is missing, or is not that of this version.
    """
    path = EMBEDDED / "fashion-mini.npz"
    content = path.read_bytes() if path.is_file() else b""
    if sha256(content) != FASHION_MINI_SHA256:
        raise BadData(f"{path} is missing or damaged", hint="install edgeproof again")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        train, test = (
            ImageSet(
                f"fashion-mini/{split}", **{part: file[f"{split}_{part}"] for part in PARTS}, classes=FASHION_CLASSES
            )
            for split in ("train", "test")
        )
    return Dataset(train, test)


def _svhn(root: Path, *, train: bool, download: bool) -> SimpleNamespace:
    split = datasets.SVHN(root, split="train" if train else "test", download=download)
    return SimpleNamespace(data=split.data.transpose(0, 2, 3, 1), targets=split.labels, classes="0123456789")


TESTS = ("test", "val", "valid", "validation")
"""Names for the part beside train/; if several exist, the first is used."""


def load_dataset(
    name: str | None,
    path: Path | None,
    root: Path = DATA_ROOT,
    *,
    preprocessing: Preprocessing | None = None,
    sharing: int = 1,
) -> Dataset:
    """Load a data set by the name of its entry point, or from a path.

    A path is a directory with train/ and one of TESTS, each with one folder per class; or with train.npz and one of
    TESTS as .npz, each with images and labels. Pictures of a folder are resized to the size of `preprocessing`. The
    training pictures are decoded now if, decoded once for each of `sharing` processes on this machine, they fill at
    most half of the free memory; otherwise whenever they are read.

    Raises:
        BadData: the name is unknown, the path holds no data set, or a size is given for a set that is not of pictures.

    """
    if path is not None:
        return _from_path(path, preprocessing, sharing)
    known = {entry.name: entry for entry in entry_points(group=DATASETS_GROUP)}
    found = known[name].load() if name in known else None
    if not isinstance(found, KnownSet):
        raise BadData(
            f"there is no data set named {name!r} to train on{did_you_mean(name, known)}",
            hint=f"known: {', '.join(sorted(known))}; or give a path",
        )
    return found.load(root)


def _from_path(path: Path, preprocessing: Preprocessing | None, sharing: int) -> Dataset:
    for read, suffix in ((_arrays, ".npz"), (_folders, "")):
        tests = [name for name in TESTS if (path / f"{name}{suffix}").exists()]
        if (path / f"train{suffix}").exists() and tests:
            return read(path, tests[0], preprocessing, sharing)
    beside = " or ".join(f"{name}/" for name in TESTS)
    raise BadData(
        f"{path.resolve()} holds no data set",
        hint=f"expected train/ with {beside} (one folder per class), or train.npz with test.npz (x and y)",
    )


def _arrays(path: Path, beside: str, preprocessing: Preprocessing | None, sharing: int) -> Dataset:
    if preprocessing is not None:
        raise BadData(f"{path}: data.size applies to the pictures of a folder, not to an .npz", hint="remove data.size")
    train = read_npz(path / "train.npz", name=f"{path.name}/train", split="train")
    test = read_npz(path / f"{beside}.npz", name=f"{path.name}/{beside}")
    count = int(max(train.labels.max(), test.labels.max())) + 1
    if count > len(train):
        raise BadData(f"{path}: label {count - 1} in a set of {len(train)} images", hint="labels must count from 0")
    return Dataset(*(replace(split, classes=numbers(count)) for split in (train, test)))


def _folders(path: Path, beside: str, preprocessing: Preprocessing | None, sharing: int) -> Dataset:
    train = read_folder(path / "train", preprocessing=preprocessing, name=f"{path.name}/train", decoded=False)
    if train.images.size * sharing <= DECODED_SHARE * free_memory(CPU):
        train = _decoded(train)
    channels = train.images.shape[1]
    test = read_folder(path / beside, channels=channels, preprocessing=preprocessing, name=f"{path.name}/{beside}")
    _refuse_other_classes(path, train, test)
    return Dataset(train, test)


def _refuse_other_classes(path: Path, train: ImageSet, test: ImageSet) -> None:
    for one, other in ((train, test), (test, train)):
        alone = [name for name in one.classes or () if name not in (other.classes or ())]
        if alone:
            raise BadData(f"{path}: {one.name} has class folders that {other.name} lacks: {listed(alone)}")


def _decoded(images: ImageSet) -> ImageSet:
    return replace(images, images=np.asarray(images.images))


def _torchvision(name: str, kind: Callable[..., Any], root: Path) -> Dataset:
    try:
        train, test = (kind(root, train=is_train, download=True) for is_train in (True, False))
    except (OSError, RuntimeError) as error:
        raise BadData(
            f"{name} is not in {root.resolve()}, and the download failed: {error}",
            hint="put torchvision's files there, or give their directory with --data-root",
        ) from None
    classes = tuple(train.classes)
    return Dataset(_image_set(f"{name}/train", train, classes), _image_set(f"{name}/test", test, classes))


def _image_set(name: str, split: Any, classes: tuple[str, ...]) -> ImageSet:
    images = np.asarray(split.data)
    images = images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return ImageSet(name, images, np.asarray(split.targets, np.int64), np.arange(len(images)), classes)


fashion_mini = KnownSet(_fashion_mini)
fashion_mnist = KnownSet(partial(_torchvision, "fashion-mnist", datasets.FashionMNIST))
cifar10 = KnownSet(partial(_torchvision, "cifar10", datasets.CIFAR10))
cifar100 = KnownSet(partial(_torchvision, "cifar100", datasets.CIFAR100))
"""With its 100 fine classes."""
svhn = KnownSet(partial(_torchvision, "svhn", _svhn))
"""The cropped digits: 73,257 training and 26,032 test images."""


def hold_out(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Draw `count` images without replacement, by `seed`; return the other images, and the drawn ones, decoded.

    Raises:
        BadData: `count` is 0, or leaves no image.

    """
    if not 0 < count < len(images.labels):
        raise BadData(f"cannot hold out {count} of {len(images.labels)} images", hint="change data.holdout")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(images.labels))
    return images.rows(np.sort(order[count:])), _decoded(images.rows(np.sort(order[:count])))


def mean_and_std(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel, to four digits; the latter at least 1/255."""
    total = squares = np.zeros(images.images.shape[1])
    for start in range(0, len(images), 1000):
        x = images.as_float(slice(start, start + 1000)).astype(np.float64)
        total, squares = total + x.sum(axis=(0, 2, 3)), squares + (x**2).sum(axis=(0, 2, 3))
    pixels = images.images.size / len(total)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    rounded = (tuple(round(float(value), 4) for value in values) for values in (mean, np.maximum(std, 1 / 255)))
    return next(rounded), next(rounded)

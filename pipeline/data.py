"""Image sets for training: by name or by path, held whole as one tensor on the training device."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets

from runtime.errors import BadData
from runtime.files import sha256
from runtime.images import DATA_ROOT, ImageSet, read_folder, read_npz

EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one data set, and the names of its classes."""

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that both splits show images of one shape, of the classes named.

        Raises:
            BadData: they do not, or there is one class only.
        """
        if len(self.classes) < 2:
            raise BadData(f"{self.train.name} has {len(self.classes)} class", hint="a classifier needs two")
        channels, height, width = self.train.images.shape[1:]
        for split in (self.train, self.test):
            split.check_fits((channels, height, width), len(self.classes))


FASHION_MINI_SHA256 = "e8c1a390a6ec608e38ed1e89a0da75d0bd395398b7e8068a3982f86b28b5d0d5"
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def load_fashion_mini(root: Path) -> Dataset:
    """Load the embedded 10,000 training and 2,000 test images of Fashion-MNIST; `root` is not used.

    Raises:
        BadData: the file is missing or not the one that belongs to this version.
    """
    path = EMBEDDED / "fashion-mini.npz"
    content = path.read_bytes() if path.is_file() else b""
    if sha256(content) != FASHION_MINI_SHA256:
        raise BadData(f"{path} is missing or damaged", hint="install edgeproof again")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        train, test = (
            ImageSet(f"fashion-mini/{split}", *(file[f"{split}_{part}"] for part in ("images", "labels", "ids")))
            for split in ("train", "test")
        )
    return Dataset(train, test, FASHION_CLASSES)


def load_fashion_mnist(root: Path) -> Dataset:
    """Load Fashion-MNIST from `root`, or download it there."""
    return _torchvision("fashion-mnist", datasets.FashionMNIST, root)


def load_cifar10(root: Path) -> Dataset:
    """Load CIFAR-10 from `root`, or download it there."""
    return _torchvision("cifar10", datasets.CIFAR10, root)


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "fashion-mini": load_fashion_mini,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
}


def load_dataset(name: str | None, path: Path | None, root: Path = DATA_ROOT) -> Dataset:
    """Load a data set by its name in DATASETS, or from a path.

    A path is a directory with train/ and test/ (or val/), each with one folder a class; or with train.npz and
    test.npz, each holding `x` and `y`.

    Raises:
        BadData: unknown name; nothing usable at the path; says where it looked.

    """
    if path is not None:
        return _from_path(path)
    if name not in DATASETS:
        raise BadData(f"no data set is called {name!r}", hint=f"known: {', '.join(sorted(DATASETS))}; or give a path")
    return DATASETS[name](root)


def _from_path(path: Path) -> Dataset:
    if (path / "train.npz").is_file():
        train, test = (read_npz(path / f"{split}.npz", name=f"{path.name}/{split}") for split in ("train", "test"))
        count = int(max(train.labels.max(), test.labels.max())) + 1
        if count > len(train):
            raise BadData(f"{path}: label {count - 1} in a set of {len(train)} images", hint="labels count from 0")
        return Dataset(train, test, tuple(str(label) for label in range(count)))
    for test_name in ("test", "val"):
        if (path / "train").is_dir() and (path / test_name).is_dir():
            train, classes = read_folder(path / "train", name=f"{path.name}/train")
            channels = train.images.shape[1]
            test, test_classes = read_folder(path / test_name, channels=channels, name=f"{path.name}/{test_name}")
            if classes != test_classes:
                raise BadData(f"{path}: train/ and {test_name}/ have different class folders")
            return Dataset(train, test, classes)
    raise BadData(
        f"{path.resolve()} holds no data set",
        hint="looked for train/ with test/ or val/ (a folder a class), and for train.npz with test.npz (x and y)",
    )


def _torchvision(name: str, kind: Callable[..., Any], root: Path) -> Dataset:
    try:
        train, test = (kind(root, train=is_train, download=True) for is_train in (True, False))
    except (OSError, RuntimeError) as error:
        raise BadData(
            f"{name} is neither in {root.resolve()} nor could it be downloaded: {error}",
            hint="put torchvision's files there, or name their place with --data-root",
        ) from None
    return Dataset(_image_set(f"{name}/train", train), _image_set(f"{name}/test", test), tuple(train.classes))


def _image_set(name: str, split: Any) -> ImageSet:
    images = np.asarray(split.data)
    images = images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return ImageSet(name, images, np.asarray(split.targets, np.int64), np.arange(len(images)))


def fashion_mini(root: Path) -> ImageSet:
    """Return the test images of fashion-mini."""
    return load_fashion_mini(root).test


def fashion_mnist(root: Path) -> ImageSet:
    """Return the test images of Fashion-MNIST."""
    return load_fashion_mnist(root).test


def cifar10(root: Path) -> ImageSet:
    """Return the test images of CIFAR-10."""
    return load_cifar10(root).test


def hold_out(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split `count` images off, drawn without replacement by `seed`: (the rest, the hold-out)."""
    if not 0 < count < len(images.labels):
        raise BadData(f"cannot hold out {count} of {len(images.labels)} images", hint="change data.holdout")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(images.labels))
    return images.rows(np.sort(order[count:])), images.rows(np.sort(order[:count]))


class Batches:
    """A training set as one tensor on the device, drawn in random, augmented batches.

    Order and augmentation follow from (seed, epoch) alone, so that a run can go on after a stop.

    Args:
        images: the set; kept as it is stored, uint8 as a rule, and turned into float32 [0, 1] a batch at a time.
        size: images in a batch; the last, smaller batch of an epoch is left out.
        crop: padding in pixels before a random crop of the image's own size.
        flip: whether half of the images are mirrored left to right.

    """

    def __init__(self, images: ImageSet, size: int, *, crop: int, flip: bool, seed: int, device: torch.device) -> None:
        if len(images.labels) < size:
            raise BadData(f"{len(images.labels)} training images do not fill one batch of {size}")
        self.images = torch.from_numpy(np.ascontiguousarray(images.images)).to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.size, self.crop, self.flip, self.seed = size, crop, flip, seed

    def __len__(self) -> int:
        """Return the batches in one epoch."""
        return len(self.labels) // self.size

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images float32 [B, C, H, W] in [0, 1], labels int64 [B]) for one epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(self.labels), generator=generator)[: len(self) * self.size].to(self.labels.device)
        for rows in order.view(-1, self.size):
            yield augment(self.images[rows], self.crop, self.flip, generator), self.labels[rows]


def augment(images: Tensor, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift every image by up to `crop` pixels over zeros, mirror half of them: one gather for the whole batch.

    Args:
        images: [B, C, H, W], uint8 or float32 in [0, 1].
        crop: padding in pixels; 0 leaves the place as it is.
        flip: whether to mirror.
        generator: on the CPU; draws the same for every device.

    Returns:
        float32 [B, C, H, W] in [0, 1].

    """
    count, _, height, width = images.shape
    down, right = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=generator)
    mirror = torch.rand(count, 1, generator=generator) < (0.5 if flip else 0.0)
    rows = (torch.arange(height) + down)[:, None, :, None]
    across = torch.arange(width)
    columns = (torch.where(mirror, across.flip(0), across) + right)[:, None, None, :]
    padded = F.pad(images, (crop, crop, crop, crop))
    device = images.device
    batch, channel = torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[None, :, None, None]
    return as_float(padded[batch.to(device), channel.to(device), rows.to(device), columns.to(device)])


def as_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], in channels_last; float32 images as they are."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return scaled.contiguous(memory_format=torch.channels_last)

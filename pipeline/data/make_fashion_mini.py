"""Make the embedded data set `fashion-mini` from the official Fashion-MNIST files (MIT licence, Zalando SE).

    python -m pipeline.data.make_fashion_mini DIRECTORY [OUTPUT.npz]

DIRECTORY holds the four official IDX files, gzipped (github.com/zalandoresearch/fashion-mnist). The SHA-256 of their
contents is checked, not of the gzip wrapper, which repackagers renew. The first 1,000 training and 200 test images of
every class are taken, in their original order.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from runtime.errors import BadData, EdgeproofError
from runtime.files import sha256, write_atomic

OFFICIAL = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
TRAIN_PER_CLASS, TEST_PER_CLASS = 1000, 200
EMBEDDED = Path(__file__).parent / "embedded" / "fashion-mini.npz"


def read_official(directory: Path, name: str) -> NDArray[np.uint8]:
    """Return one official IDX file as uint8 [N, 28, 28] or [N], after checking its digest."""
    path = directory / name
    if not path.is_file():
        raise BadData(
            f"{path} is missing", hint="download the four .gz files of github.com/zalandoresearch/fashion-mnist"
        )
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise BadData(f"{path} is damaged: {error}", hint="download it again") from None
    if sha256(raw) != OFFICIAL[name]:
        raise BadData(f"{path} is not the official file: the SHA-256 of its contents differs")
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def first_per_class(labels: NDArray[np.uint8], count: int) -> NDArray[np.intp]:
    """Return the indices of the first `count` images of every class, in their original order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def make(directory: Path) -> bytes:
    """Return fashion-mini.npz: images uint8 [N, 1, 28, 28], labels int64, ids in the official files."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for split, prefix, count in (("train", "train", TRAIN_PER_CLASS), ("test", "t10k", TEST_PER_CLASS)):
        images = read_official(directory, f"{prefix}-images-idx3-ubyte.gz")
        labels = read_official(directory, f"{prefix}-labels-idx1-ubyte.gz")
        ids = first_per_class(labels, count)
        arrays[f"{split}_images"] = images[ids, None]
        arrays[f"{split}_labels"] = labels[ids].astype(np.int64)
        arrays[f"{split}_ids"] = ids.astype(np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub mixes arrays and allow_pickle
    return buffer.getvalue()


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path), default=EMBEDDED)
def main(directory: Path, output: Path) -> None:
    """Make fashion-mini from the four official files in DIRECTORY."""
    try:
        write_atomic(output, make(directory))
    except EdgeproofError as error:
        raise click.ClickException(f"{error.message}\n{error.hint or ''}".rstrip()) from None


if __name__ == "__main__":
    main()

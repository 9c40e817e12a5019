"""Every batch has its share of the extra images, spread over it; what does not fit the set is refused."""

import numpy as np
import pytest
import torch

from pipeline.data.batches import Batches
from pipeline.data.extra import Extra, load_extra, refuse_judged, spread
from pipeline.data.sets import Dataset
from runtime.errors import BadData
from runtime.images.image_set import ImageSet

CPU = torch.device("cpu")
OWN, OTHER = 60, 200
"""Pixels below OTHER are of the set itself."""


def image_set(count, lowest, dtype=np.uint8):
    """Pictures of one value each, which also says their label."""
    values = lowest + np.arange(count) % 50
    images = np.broadcast_to(values[:, None, None, None], (count, 1, 4, 4)).astype(np.uint8)
    images = images if dtype == np.uint8 else images.astype(np.float32) / 255
    return ImageSet("set", images, values % 7, np.arange(count), tuple("abcdefg"))


def batches(share=0.7, *, extra=None, own=None, **changes):
    arguments = {"crop": 0, "flip": False, "seed": 3, "device": CPU, **changes}
    return Batches(own or image_set(OWN, 0), 10, extra=extra or Extra(image_set(80, OTHER), share), **arguments)


def epoch(batches, number=0):
    return [(images.clone(), labels.clone()) for images, labels in batches.epoch(number)]


def is_extra(images):
    return (images[:, 0, 0, 0] * 255).round() >= OTHER


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.9])
def test_every_batch_has_its_share_and_an_epoch_as_many_batches_as_without(share):
    mixed = epoch(batches(share))
    assert len(mixed) == OWN // 10
    for images, labels in mixed:
        assert is_extra(images).sum() == round(10 * share)
        values = (images[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(labels, values % 7)


def test_extra_images_lie_evenly_between_the_others():
    assert spread(3, 7).tolist() == [3, 0, 4, 5, 1, 6, 7, 8, 2, 9]
    for images, _ in epoch(batches(0.5)):
        for part in images.tensor_split(5):
            assert is_extra(part).sum() == 1


def test_own_images_come_once_an_epoch_and_the_extra_ones_differ_from_epoch_to_epoch():
    loader = batches(0.5, own=image_set(50, 0))
    first, second = (torch.cat([images[:, 0, 0, 0] * 255 for images, _ in epoch(loader, n)]).round() for n in (0, 1))
    for values in (first, second):
        own = values[values < OTHER]
        assert len(own.unique()) == len(own) == 25
    others = [values[values >= OTHER] for values in (first, second)]
    assert len(torch.cat(others).unique()) > 25
    assert not torch.equal(*others)


def test_epochs_are_repeated_by_the_seed_wherever_the_images_are_kept_as_bytes_or_floats():
    expected = epoch(batches(), 4)
    floats = Extra(image_set(80, OTHER, np.float32), 0.7)
    for same in (batches(), batches(place="stream"), batches(extra=floats)):
        for (images, labels), (others, their) in zip(epoch(same, 4), expected, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, their)


def test_without_extra_images_an_epoch_is_what_it_was():
    plain = epoch(Batches(image_set(OWN, 0), 10, crop=0, flip=False, seed=3, device=CPU))
    order = torch.randperm(OWN, generator=torch.Generator().manual_seed(3 * 1_000_003))
    shown = torch.cat([images[:, 0, 0, 0] for images, _ in plain])
    assert torch.equal((shown * 255).round().long(), order % 50)


@pytest.fixture
def dataset():
    return Dataset(image_set(20, 0), image_set(10, 0))


@pytest.mark.parametrize("keys", [("image", "label"), ("x", "y")])
def test_published_and_usual_keys_are_read(keys, dataset, tmp_path):
    images = np.zeros((5, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "more.npz", **dict(zip(keys, (images, [0, 1, 2, 6, 6]), strict=True)))
    extra = load_extra(tmp_path / "more.npz", 0.3, dataset)
    assert (len(extra.images), extra.images.images.shape, extra.share) == (5, (5, 1, 4, 4), 0.3)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((2, 1, 4, 4), np.uint8), [0, 7], "label 7, but there are 7 classes"),
        (np.zeros((2, 1, 4, 5), np.uint8), [0, 1], "1 x 4 x 5"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 1], "3 x 4 x 4"),
        (np.zeros((2, 1, 4, 4), np.uint8), [0, -1], "-1"),
        (np.zeros((2, 1, 4, 4), np.int64), [0, 1], "int64"),
    ],
)
def test_other_classes_shapes_and_types_are_refused(images, labels, says, dataset, tmp_path):
    np.savez(tmp_path / "more.npz", image=images, label=np.array(labels))
    with pytest.raises(BadData) as caught:
        load_extra(tmp_path / "more.npz", 0.3, dataset)
    assert says in str(caught.value.message)


def test_a_file_that_is_not_there_is_refused_by_name(dataset, tmp_path):
    with pytest.raises(BadData, match=r"more\.npz"):
        load_extra(tmp_path / "more.npz", 0.3, dataset)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_that_a_network_is_judged_on_are_no_extra_ones(kind):
    judged = ImageSet("judged", np.arange(2 * 16, dtype=np.uint8).reshape(2, 1, 4, 4), np.zeros(2, int), np.arange(2))
    more = np.concatenate([judged.images[1:], np.zeros((2, 1, 4, 4), np.uint8)])
    more = more if kind == np.uint8 else (more / 255).astype(kind)
    extra = Extra(ImageSet("more", more, np.zeros(3, int), np.arange(3)), 0.5)
    with pytest.raises(BadData, match="1 of the 3 extra images are hold-out images, such as image 0"):
        refuse_judged(extra, judged, "hold-out")
    refuse_judged(Extra(extra.images.rows(slice(1, 3)), 0.5), judged, "hold-out")


def test_a_mirrored_test_image_is_no_extra_one_because_training_mirrors_it_back():
    judged = ImageSet("judged", np.arange(2 * 16, dtype=np.uint8).reshape(2, 1, 4, 4), np.zeros(2, int), np.arange(2))
    extra = Extra(ImageSet("more", judged.images[:1, :, :, ::-1], np.zeros(1, int), np.arange(1)), 0.5)
    with pytest.raises(BadData, match="1 of the 1 extra images are test images, such as image 0"):
        refuse_judged(extra, judged, "test")

import os

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.augment import AUGMENTATIONS
from pipeline.data.batches import Batches, decoders, resolve_place
from pipeline.data.shifts import as_float
from runtime.errors import BadData, MissingEnvironment
from runtime.images.decode import Pictures
from runtime.images.folder import read_folder
from runtime.images.image_set import ImageSet

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def image_set(count=20, channels=1, size=8):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, channels, size, size), np.uint8)
    return ImageSet("set", images, np.arange(count) % 4, np.arange(count))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same 20 pictures: listed in files, and decoded."""
    path, random = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (path / name).mkdir()
        for number in range(10):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path / name / f"{number}.png")
    return [read_folder(path, decoded=decoded) for decoded in (False, True)]


def epoch(batches, number):
    return [(images.clone(), labels.clone()) for images, labels in batches.epoch(number)]


def equal(some, others):
    return all(torch.equal(a, b) for pair in zip(some, others, strict=True) for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("number", [0, 7])
def test_a_streamed_epoch_is_the_held_one_bit_for_bit(folder, number):
    listed, decoded = folder
    held = epoch(batches(images=decoded, place="device"), number)
    for images in (listed, decoded):
        streamed = batches(images=images, place="stream")
        assert equal(held, epoch(streamed, number))
        assert streamed.place == "stream"
        assert len(streamed) == len(held) == 3
    assert equal(held, epoch(batches(images=listed, place="device"), number))


def test_streaming_decodes_a_batch_at_a_time_and_leaves_the_global_generator_alone(folder, monkeypatch):
    monkeypatch.setattr("pipeline.data.batches.WORKERS", 0)
    decoded, whole = [], Pictures.__array__
    monkeypatch.setattr(Pictures, "__array__", lambda self, *rest: decoded.append(len(self)) or whole(self, *rest))
    before = torch.get_rng_state()
    epoch(batches(images=folder[0]), 0)
    assert decoded == [6, 6, 6]
    assert torch.equal(before, torch.get_rng_state())


def test_an_epoch_may_be_left_before_its_end(folder):
    for images, _ in batches(images=folder[0]).epoch(0):
        assert images.shape == (6, 3, 8, 8)
        break


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_vanishes_ends_the_epoch_with_its_name(folder, workers, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.batches.WORKERS", workers)
    path = tmp_path / "only"
    (path / "cat").mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (8, 8)).save(path / "cat" / f"{number}.png")
    images = read_folder(path, decoded=False)
    (path / "cat" / "3.png").unlink()
    with pytest.raises(BadData, match=r"3\.png"):
        epoch(batches(images=images), 0)


def test_a_worker_that_dies_is_a_lack_of_the_machine(folder, monkeypatch):
    def die(self, dtype=None, copy=None):
        os._exit(1)

    monkeypatch.setattr(Pictures, "__array__", die)
    with pytest.raises(MissingEnvironment, match="lost"):
        epoch(batches(images=folder[0]), 0)


def test_a_set_is_kept_on_the_device_where_it_fills_half_of_its_free_memory_at_most(folder, monkeypatch):
    images = image_set()  # 1,280 bytes
    for free, place in ((2560, "device"), (2559, "stream")):
        monkeypatch.setattr("pipeline.data.batches.free_memory", lambda device, free=free: free)
        assert resolve_place("auto", images, CUDA) == place
        assert resolve_place("device", images, CUDA) == "device"
        assert resolve_place("stream", images, CUDA) == "stream"


def test_on_the_cpu_a_set_stays_where_it_is(folder):
    listed, decoded = folder
    assert resolve_place("auto", listed, CPU) == "stream"
    assert resolve_place("auto", decoded, CPU) == "device"


def test_the_processes_of_a_machine_share_its_cores_for_decoding(monkeypatch):
    monkeypatch.setattr("pipeline.data.batches.cores", lambda: 12)
    assert [decoders(processes) for processes in (1, 2, 4, 8, 100)] == [8, 6, 3, 1, 1]


def batches(images=None, **changes):
    arguments = {"crop": 2, "flip": True, "seed": 3, "device": CPU, **changes}
    return Batches(images or image_set(), 6, **arguments)


def test_an_epoch_shows_whole_batches_of_distinct_images():
    plain = batches(crop=0, flip=False)
    seen = torch.cat([images for images, _ in plain.epoch(0)])
    assert len(plain) == 3
    assert seen.shape == (18, 1, 8, 8)
    assert seen.dtype == torch.float32
    known = {image.tobytes() for image in image_set().images}
    shown = {(image * 255).round().to(torch.uint8).numpy().tobytes() for image in seen}
    assert len(shown) == 18
    assert shown <= known


def test_epochs_differ_from_one_another_and_are_repeated_by_the_seed():
    first, again = ([images for images, _ in batches().epoch(0)] for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    other = next(iter(batches().epoch(1)))[0]
    assert not torch.equal(first[0], other)


def test_an_epoch_draws_in_an_order_that_stays_so_that_runs_go_on_to_equal_bits():
    """The order of all images; then of every batch the shifts down, those to the right, and the mirrors."""
    generator, images = torch.Generator().manual_seed(3 * 1_000_003 + 2), torch.from_numpy(image_set().images)
    order = torch.randperm(20, generator=generator)[:18].view(3, 6)
    for (shown, _), rows in zip(batches().epoch(2), order, strict=True):
        down, right = torch.randint(0, 5, (2, 6), generator=generator)
        mirrored = torch.rand(6, generator=generator) < 0.5
        for image, row, *draws in zip(shown, rows, down, right, mirrored, strict=True):
            y, x, mirror = (int(value) for value in draws)
            window = torch.nn.functional.pad(images[row], (2,) * 4)[:, y : y + 8, x : x + 8]
            assert torch.equal(image, as_float((window.flip(2) if mirror else window)[None])[0])


def test_labels_stay_with_their_images():
    images = image_set()
    images.images[:] = images.labels[:, None, None, None]
    loader = Batches(images, 6, crop=0, flip=True, seed=0, device=torch.device("cpu"))
    for shown, labels in loader.epoch(0):
        assert torch.equal((shown * 255).round().long()[:, 0, 0, 0], labels)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_every_augmentation_follows_from_seed_and_epoch_wherever_the_set_is_kept(folder, kind):
    listed, decoded = folder
    held = epoch(batches(images=decoded, place="device", kind=kind), 2)
    assert equal(held, epoch(batches(images=listed, place="stream", kind=kind), 2))
    assert not equal(held, epoch(batches(images=decoded, kind=kind), 3))
    assert not equal(held, epoch(batches(images=decoded, kind=kind, seed=4), 2))


def test_the_augmentation_changes_after_as_many_epochs_as_are_said():
    switched = batches(kind="cropshift", switch=(2, "idbh-weak"))
    for number, kind in enumerate(["cropshift", "cropshift", "idbh-weak", "idbh-weak"]):
        assert equal(epoch(switched, number), epoch(batches(kind=kind), number))
        assert not equal(epoch(switched, number), epoch(batches(kind="pad-crop"), number))

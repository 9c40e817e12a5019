import io
import os
import tempfile
from pathlib import Path

import pytest

from runtime.bundle.opening import open_bundle
from runtime.errors import MissingEnvironment
from runtime.files import sha256
from runtime.images.unlinked_file import BLOCK, copied

DATA = os.urandom(2 * BLOCK + 17)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("data", [b"", b"some", DATA], ids=["empty", "small", "blocks"])
def test_a_copy_is_what_was_read_and_says_its_digest(data, large):
    copy = copied(io.BytesIO(data), len(data), large=large)
    assert (copy.read(), copy.size, copy.sha256) == (data, len(data), sha256(data))
    with copy.open() as first:
        assert first.read(3) == data[:3]
    with copy.open() as second:
        assert second.read() == data
    assert copy == copied(io.BytesIO(data), len(data), large=not large)


@pytest.mark.parametrize("large", [False, True])
def test_of_a_file_that_is_too_long_a_byte_too_many_is_read_and_no_more(large):
    source = io.BytesIO(DATA)
    assert copied(source, BLOCK, large=large).size == source.tell() == BLOCK + 1


def test_a_copy_on_disk_is_closed_with_its_last_holder():
    before = len(os.listdir("/proc/self/fd"))
    copy = copied(io.BytesIO(DATA), len(DATA), large=True)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del copy
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_bundle_is_what_was_checked_whatever_becomes_of_its_files(bundle, monkeypatch):
    monkeypatch.setattr("runtime.bundle.opening.LARGE", 0)
    whole = {file.name: file.read_bytes() for file in bundle.iterdir()}
    opened = open_bundle(bundle)
    for file in bundle.iterdir():
        file.write_bytes(b"changed in place")
    assert {name: opened.read(name) for name in opened.contents} == whole
    assert all(isinstance(copy.held, int) for name, copy in opened.contents.items())


def test_without_a_place_for_temporary_files_a_large_bundle_says_so(bundle, monkeypatch):
    monkeypatch.setattr("runtime.bundle.opening.LARGE", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(Path("/nowhere")))
    with pytest.raises(MissingEnvironment, match="temporary") as caught:
        open_bundle(bundle)
    assert "TMPDIR" in caught.value.hint

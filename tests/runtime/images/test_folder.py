"""Folders of pictures: labels by class, and what is refused."""

import sys

import pytest

from runtime.errors import BadData, MissingEnvironment
from runtime.images.find import find_images
from runtime.images.folder import read_folder


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    for number, name in enumerate(["cat", "ant"]):
        (tmp_path / "set" / name).mkdir(parents=True)
        for place in range(2):
            Image.new("RGB", (5, 4), (number, place, 9)).save(tmp_path / "set" / name / f"{place}.png")
    return tmp_path / "set"


def test_a_folder_is_read_with_labels_by_sorted_class(folder):
    images = read_folder(folder)
    assert images.classes == ("ant", "cat")
    assert images.images.shape == (4, 3, 4, 5)
    assert images.images[:, :, 0, 0].tolist() == [[1, 0, 9], [0, 0, 9], [1, 1, 9], [0, 1, 9]]
    assert images.labels.tolist() == [0, 1, 0, 1]


def test_the_first_images_of_a_folder_are_of_every_class_and_ids_count_in_their_order(folder):
    (folder / "cat" / "0.png").rename(folder / "ant" / "2.png")
    images = read_folder(folder, name="pets/test")
    assert images.name == "pets/test"
    assert images.labels.tolist() == [0, 1, 0, 0]
    assert images.ids.tolist() == [0, 1, 2, 3]
    assert images.images[:, 1, 0, 0].tolist() == [0, 1, 1, 0]


def test_a_folder_is_labelled_by_name_where_the_model_knows_the_names(folder):
    assert find_images(str(folder), classes=("bee", "cat", "ant")).labels.tolist() == [2, 1, 2, 1]
    assert find_images(str(folder)).labels.tolist() == [0, 1, 0, 1]


def test_a_folder_whose_names_the_model_does_not_know_is_taken_in_its_order_and_says_so(folder, capsys):
    assert find_images(str(folder), classes=("0", "1")).labels.tolist() == [0, 1, 0, 1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("set: classes: ant, cat, in the order of names")
    assert find_images(str(folder), classes=("Ameise", "Katze")).labels.tolist() == [0, 1, 0, 1]
    assert capsys.readouterr().err.splitlines()[-1].endswith("in their order: ant = Ameise, cat = Katze")


STRANGE_FOLDERS = {
    "one of two known": (("cat", "dog"), "ant"),
    "one of three known": (("cat", "dog", "cow"), "ant"),
}


@pytest.mark.parametrize(("classes", "strange"), STRANGE_FOLDERS.values(), ids=STRANGE_FOLDERS)
def test_a_folder_that_cannot_be_labelled_for_certain_is_refused(folder, classes, strange):
    with pytest.raises(BadData, match=f"no class of the model is called {strange}$") as caught:
        find_images(str(folder), classes=classes)
    assert ", ".join(classes) in caught.value.hint


@pytest.mark.parametrize("classes", [("0", "1", "2"), ("0",), ("bee", "dog", "eel"), ("bee",)])
def test_a_folder_of_unknown_names_needs_as_many_classes_as_the_model(folder, classes):
    with pytest.raises(BadData, match=rf"2 classes \(ant, cat\), but the model has {len(classes)} logits") as caught:
        find_images(str(folder), classes=classes)
    assert "--classes" in caught.value.hint


def test_the_hint_of_a_strange_folder_does_not_list_a_thousand_classes(folder):
    with pytest.raises(BadData) as caught:
        find_images(str(folder), classes=("ant", *(f"class-{number}" for number in range(1000))))
    assert len(caught.value.hint) < 300


def test_a_folder_is_read_grey_for_a_grey_model(folder):
    assert read_folder(folder, channels=1).images.shape == (4, 1, 4, 5)


def test_a_folder_with_a_broken_image_another_size_or_an_empty_class_is_refused(folder):
    from PIL import Image

    Image.new("RGB", (6, 4)).save(folder / "cat" / "2.png")
    with pytest.raises(BadData, match="3 x 4 x 6"):
        read_folder(folder)
    (folder / "cat" / "2.png").write_bytes(b"no image")
    with pytest.raises(BadData, match="cannot be read as an image") as caught:
        read_folder(folder)
    assert caught.value.hint == "remove or replace it"
    (folder / "cat" / "2.png").unlink()
    (folder / "dog").mkdir()
    with pytest.raises(BadData, match="dog holds no images"):
        read_folder(folder)


def test_pictures_without_class_folders_are_told_from_a_folder_without_pictures(folder):
    with pytest.raises(BadData, match="cat holds pictures, but no class folders") as caught:
        read_folder(folder / "cat")
    assert "the folder above it" in caught.value.hint
    (folder / "empty").mkdir()
    with pytest.raises(BadData, match="empty holds no class folders"):
        read_folder(folder / "empty")


def test_a_folder_without_pillow_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingEnvironment) as caught:
        read_folder(folder)
    assert "pip install '.[report]'" in caught.value.hint

"""Which class an image is of: by name, by number, never by chance."""

import numpy as np
import pytest
from PIL import Image

from runtime.errors import BadData, UsageFault
from runtime.images import find as module
from runtime.images.classes import class_numbers, read_classes
from runtime.images.find import find_images
from runtime.images.image_set import ImageSet
from tests.tiny import npz

NUMBERS = [str(number) for number in range(12)]


def folder_of(path, names):
    """Make an image folder: the colour of a class's picture is its place among the names."""
    for place, name in enumerate(names):
        (path / name).mkdir(parents=True)
        Image.new("L", (4, 4), place).save(path / name / "0.png")
    return str(path)


def label_by_colour(images):
    return {int(image[0, 0, 0]): int(label) for image, label in zip(images.images, images.labels, strict=True)}


def in_place(count):
    return {number: number for number in range(count)}


def test_folders_that_are_numbers_are_ordered_as_numbers_and_that_is_said(tmp_path, capsys):
    images = find_images(folder_of(tmp_path / "set", NUMBERS))
    assert images.classes == tuple(NUMBERS)
    assert label_by_colour(images) == in_place(12)
    assert capsys.readouterr().err.endswith("set: classes: 0 ... 11, in the order of numbers\n")


def test_folders_some_of_which_are_numbers_are_ordered_by_name_and_that_is_said(tmp_path, capsys):
    images = find_images(folder_of(tmp_path / "set", ["2", "10", "cat"]))
    assert images.classes == ("10", "2", "cat")
    assert capsys.readouterr().err.endswith("set: classes: 10, 2, cat, in the order of names\n")


def test_two_folders_of_one_number_are_refused(tmp_path):
    with pytest.raises(BadData, match="01 and 1 are the same number"):
        find_images(folder_of(tmp_path / "set", ["0", "1", "01"]))


@pytest.mark.parametrize("names", [NUMBERS, [f"{number:02}" for number in range(12)], [f"{n + 1}" for n in range(12)]])
def test_numbered_folders_are_taken_in_their_order_by_a_model_whose_classes_are_numbers(tmp_path, names):
    images = find_images(folder_of(tmp_path / "set", names), classes=tuple(NUMBERS))
    assert label_by_colour(images) == in_place(12)
    assert images.classes == tuple(NUMBERS)


def test_a_model_with_its_classes_in_another_order_names_the_folders_labels(tmp_path):
    alphabetical = tuple(sorted(NUMBERS))
    images = find_images(folder_of(tmp_path / "set", NUMBERS), classes=alphabetical)
    assert label_by_colour(images) == {number: alphabetical.index(str(number)) for number in range(12)}


@pytest.mark.parametrize(
    "names",
    [[f"class{n + 1}" for n in range(10)], [f"{n}" for n in range(-5, 5)], ["2", "10", "cat"], ["v1.10", "v1.9"]],
)
def test_folders_whose_numbers_come_in_another_order_than_their_names_need_a_list_of_classes(tmp_path, names):
    path = folder_of(tmp_path / "set", names)
    with pytest.raises(BadData, match="ambiguous") as caught:
        find_images(path, classes=tuple(NUMBERS[: len(names)]))
    assert "--classes" in caught.value.hint
    assert label_by_colour(find_images(path, classes=tuple(names))) == in_place(len(names))


@pytest.mark.parametrize(
    "names",
    [["class1", "class2"], ["class01", "class10"], ["ant", "bee"], ["-1", "0", "1"], ["n01", "n02"], ["cat-x", "cat2"]],
)
def test_folders_in_one_order_by_name_and_by_number_are_taken_in_it(tmp_path, names):
    images = find_images(folder_of(tmp_path / "set", names), classes=tuple(NUMBERS[: len(names)]))
    assert label_by_colour(images) == in_place(len(names))


def test_a_set_whose_order_is_its_own_is_taken_in_it():
    names = ("trouser", "shirt", "coat 2", "coat 10")
    assert class_numbers("clothes", names, NUMBERS[:4]).tolist() == [0, 1, 2, 3]


def test_numbers_and_capitals_are_compared_as_people_do(tmp_path):
    path = folder_of(tmp_path / "set", ["Cat", "dog", "07"])
    assert label_by_colour(find_images(path, classes=("7", "DOG", "cat", "eel"))) == {0: 2, 1: 1, 2: 0}


def test_letters_that_differ_in_case_alone_are_two_classes(tmp_path):
    path = folder_of(tmp_path / "set", ["a", "B", "A"])
    assert label_by_colour(find_images(path, classes=("a", "A", "b", "B"))) == {0: 0, 1: 3, 2: 1}


@pytest.mark.parametrize("count", [11, 13])
def test_fewer_or_more_folders_than_classes_without_names_are_refused(tmp_path, count):
    path = folder_of(tmp_path / "set", [str(number) for number in range(count)])
    with pytest.raises(BadData, match=f"{count} classes .*, but the model has 12 logits"):
        find_images(path, classes=tuple(NUMBERS))


def test_a_model_with_two_classes_of_one_name_labels_no_folder(tmp_path):
    with pytest.raises(BadData, match="two classes are called cat"):
        find_images(folder_of(tmp_path / "set", ["cat", "dog"]), classes=("cat", "dog", "cat"))


def test_a_set_with_names_is_never_judged_as_if_it_were_in_the_models_order():
    images = ImageSet("set", np.zeros((2, 1, 4, 4), np.uint8), np.arange(2), np.arange(2), ("cat", "dog"))
    images.check_fits((1, 4, 4), ("cat", "dog"))
    images.rows(np.array([1])).check_fits((1, 4, 4), ("cat", "dog"))
    with pytest.raises(BadData, match=r"its classes \(cat, dog\) are not the model's \(dog, cat\)"):
        images.check_fits((1, 4, 4), ("dog", "cat"))
    for part in (images.rows(slice(1)), images.first(1)):
        with pytest.raises(BadData, match=r"2 classes .* 3 logits"):
            part.check_fits((1, 4, 4), ("cat", "dog", "eel"))
    swapped = images.numbered(("dog", "cat"))
    assert swapped.labels.tolist() == [1, 0]
    swapped.check_fits((1, 4, 4), ("dog", "cat"))


def test_names_of_classes_are_each_their_own_and_one_for_every_label():
    x = np.zeros((2, 1, 4, 4), np.uint8)
    with pytest.raises(BadData, match="two classes are called cat"):
        ImageSet("set", x, np.arange(2), np.arange(2), ("cat", "cat"))
    with pytest.raises(BadData, match="label 1, but there are 1 classes"):
        ImageSet("set", x, np.arange(2), np.arange(2), ("cat",))


def test_a_set_known_by_name_is_numbered_as_the_models_classes_too(monkeypatch):
    images = ImageSet("known", np.zeros((2, 1, 4, 4), np.uint8), np.arange(2), np.arange(2), ("cat", "dog"))
    monkeypatch.setattr(module, "entry_points", lambda group: [Known(images)])
    assert find_images("known", classes=("dog", "cat", "eel")).labels.tolist() == [1, 0]


def test_a_folder_that_shadows_a_known_set_lends_it_nothing_and_is_named(tmp_path, monkeypatch, capsys):
    images = ImageSet("known", np.zeros((2, 1, 4, 4), np.uint8), np.arange(2), np.arange(2), ("cat", "dog"))
    monkeypatch.setattr(module, "entry_points", lambda group: [Known(images)])
    folder_of(tmp_path / "known", ["ape", "bee"])
    monkeypatch.chdir(tmp_path)
    assert find_images("known").classes == ("cat", "dog")
    assert "--data known means the known set of that name; for the path write ./known" in capsys.readouterr().err
    assert find_images("./known").classes == ("ape", "bee")


def test_an_npz_numbers_the_models_classes_itself(tmp_path):
    (tmp_path / "set.npz").write_bytes(npz(x=np.zeros((2, 1, 4, 4), np.uint8), y=np.array([2, 0])))
    assert find_images(str(tmp_path / "set.npz"), classes=("c", "b", "a")).labels.tolist() == [2, 0]


class Known:
    name, extras = "known", ["train"]

    def __init__(self, images):
        self.images = images

    def load(self):
        return lambda root: self.images


def test_names_are_read_from_a_file_or_between_commas(tmp_path):
    (tmp_path / "names.txt").write_text("tench, Tinca tinca\r\n  goldfish \nKätzchen\n\n", "utf-8-sig")
    assert read_classes(str(tmp_path / "names.txt")) == ("tench, Tinca tinca", "goldfish", "Kätzchen")
    assert read_classes("ant, bee,cat") == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"ant\n\nbee\n", "class 1 has no name"), (b"ant\nbee\nant", "two classes are called ant"), (b"\xff\xfe", "text")],
)
def test_a_file_that_is_no_list_of_names_is_refused(tmp_path, content, words):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(BadData, match=words):
        read_classes(str(tmp_path / "names.txt"))


@pytest.mark.parametrize("asked", ["nowhere.txt", "", "ant"])
def test_one_word_that_is_no_file_is_no_list(asked):
    with pytest.raises(UsageFault, match="no such file"):
        read_classes(asked)


@pytest.mark.parametrize("asked", ["ant,bee,ant", "ant,,bee", ","])
def test_a_list_with_a_name_twice_or_without_one_is_refused(asked):
    with pytest.raises(BadData):
        read_classes(asked)

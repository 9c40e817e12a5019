from pathlib import Path

import pytest

from pipeline.methods import METHODS
from pipeline.recipe import load_recipe
from pipeline.recipe_file import recipe_names
from pipeline.search import SearchSpec
from runtime.errors import BadRecipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_resolves_and_survives_being_written_and_read(name, tmp_path):
    recipe = load_recipe(name)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml())
    assert load_recipe(str(copy)) == recipe
    assert recipe.name == name


def test_all_errors_come_at_once_each_with_its_path():
    wrong = ["method.adaad.alpha=3", "method.adaad.beta=1", "train.lr=-1", "nonsense.x=1", "search.eps=8/0"]
    with pytest.raises(BadRecipe) as error:
        load_recipe("fashion-mini", wrong)
    for path in ("method.adaad.alpha", "method.adaad.beta", "train.lr", "nonsense", "search.eps"):
        assert f"  {path}: " in error.value.message


def test_only_the_chosen_methods_table_is_validated_and_kept():
    overrides = ["method.name=pgd-at", "method.adaad.alpha=nonsense"]
    resolved = load_recipe("fashion-mini", overrides).to_dict()
    assert resolved["method"] == {"name": "pgd-at", "pgd-at": {}}


def test_reduction_is_the_methods_own_where_the_recipe_names_none(tmp_path):
    text = load_recipe("fashion-mini").to_toml().replace('reduction = "batchmean"\n', "")
    path = tmp_path / "paper.toml"
    path.write_text(text)
    assert load_recipe(str(path)).train.reduction == "mean"
    assert load_recipe(str(path), ["method.name=pgd-at"]).train.reduction == "batchmean"


@pytest.mark.parametrize("student", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("name", METHODS)
def test_the_cifar10_recipe_takes_the_published_schedule_of_every_method(name, student):
    recipe = load_recipe("cifar10", [f"method.name={name}", f"student.arch={student}"])
    published, train = METHODS[name].schedule, recipe.train
    assert (train.epochs, train.milestones) == (published.epochs, published.milestones)
    assert (train.weight_decay, train.reduction) == (published.weight_decay, METHODS[name].reduction)
    assert (train.lr, train.momentum, train.batch) == (0.1, 0.9, 128)
    assert recipe.search == SearchSpec(eps=8 / 255, step=2 / 255, steps=10)


def test_published_milestones_keep_their_place_in_another_number_of_epochs():
    assert load_recipe("cifar10", ["train.epochs=30"]).train.milestones == (15, 22.5)
    assert load_recipe("cifar10", ["train.epochs=30", "train.milestones=[]"]).train.milestones == ()


@pytest.mark.parametrize("epochs", ["0", "'many'", "[1]", "nan"])
def test_epochs_that_are_no_number_of_epochs_are_refused(epochs):
    with pytest.raises(BadRecipe, match=r"train\.epochs"):
        load_recipe("cifar10", [f"train.epochs={epochs}"])


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_every_method_is_documented(name):
    documented = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    rows = documented.partition(f"| [method.{name}]")[2].partition("| [method.")[0]
    assert all(f"`{field}`" in rows for field in METHODS[name].options.model_fields)


@pytest.mark.parametrize(
    ("override", "read"),
    [("search.eps=4/255", 4 / 255), ("search.eps=0.02", 0.02), ("search.eps='4/255'", 4 / 255)],
)
def test_eps_is_a_fraction_or_a_float(override, read):
    assert load_recipe("fashion-mini", [override]).search.eps == pytest.approx(read)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["method.name=magic"], "adaad"),
        (["train"], "path.to.key=value"),
        (["name.x=1"], "not a table"),
        (["data.path=/nowhere"], "either name or path"),
        (["student.arch=vgg"], "resnet18"),
        (["method=3"], "method"),
        (["method.name=[1]"], "method"),
        (["train=3"], "train"),
    ],
)
def test_a_wrong_override_is_refused_and_says_why(overrides, says):
    with pytest.raises(BadRecipe, match=says):
        load_recipe("fashion-mini", overrides)


def test_a_method_that_distils_needs_a_teacher(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(load_recipe("fashion-teacher").to_toml())
    with pytest.raises(BadRecipe, match=r"needs a \[teacher\]"):
        load_recipe(str(path), ["method.name=adaad", "train.lr=-1"])


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(BadRecipe) as error:
        load_recipe("nonsense")
    assert error.value.hint is not None
    assert "fashion-mini" in error.value.hint


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b""])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(BadRecipe, match=r"broken\.toml"):
        load_recipe(str(path))

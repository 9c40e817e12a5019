import re
from pathlib import Path

import pytest

from pipeline.methods import METHODS
from pipeline.recipe.schema import load_recipe
from pipeline.recipe.source import names_of
from pipeline.recipe.tables import ResourcesTable
from runtime.errors import BadRecipe
from tests.command_line import edgeproof
from tests.paths import ROOT


@pytest.mark.parametrize("name", names_of("recipe"))
def test_every_packaged_recipe_resolves_and_survives_being_written_and_read(name, tmp_path):
    recipe = load_recipe(name)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml())
    assert load_recipe(str(copy)) == recipe.model_copy(update={"resources": ResourcesTable()})
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
    assert resolved["method"] == {"name": "pgd-at", "start": "clamped", "pgd-at": {}}


def test_reduction_is_the_methods_own_where_the_recipe_names_none(tmp_path):
    text = load_recipe("fashion-mini").to_toml().replace('reduction = "batchmean"\n', "")
    path = tmp_path / "paper.toml"
    path.write_text(text)
    assert load_recipe(str(path)).train.reduction == "mean"
    assert load_recipe(str(path), ["method.name=pgd-at"]).train.reduction == "batchmean"


@pytest.fixture
def write(tmp_path):
    """Write a recipe of that name beside the others; return its path."""

    def write(name, text):
        (tmp_path / f"{name}.toml").write_text(text)
        return str(tmp_path / f"{name}.toml")

    return write


def test_a_recipe_says_only_what_differs_from_its_base(write):
    write("beneath", 'base = "fashion-mini"\n[student]\nwidth = 0.5\n[train]\nmilestones = [1, 2]')
    own = load_recipe(write("own", 'base = "beneath.toml"\nname = "own"\nseed = 3\n[train]\nmilestones = [3]'))
    expected = load_recipe("fashion-mini", ["name=own", "seed=3", "student.width=0.5", "train.milestones=[3]"])
    assert own == expected


def test_what_holds_for_a_method_is_above_the_recipe_and_beneath_the_command_line(write):
    path = write(
        "own",
        'base = "cifar10"\n[train]\nepochs = 7\n[for.ard.train]\nepochs = 8\n[for.ard.method.ard]\ntemperature = 4\n',
    )
    assert load_recipe(path).train.epochs == 7
    ard = load_recipe(path, ["method.name=ard"])
    assert (ard.train.epochs, ard.method.options.temperature) == (8, 4)
    assert load_recipe(path, ["method.name=ard", "train.epochs=9"]).train.epochs == 9


def test_what_a_base_says_for_a_method_is_beneath_the_recipe_on_it(write):
    write(
        "base", 'base = "cifar10"\n[for.ard.train]\nlr = 0.5\nmomentum = 0.5\n[for.ard.method.ard]\ntemperature = 4\n'
    )
    own = write("own", 'base = "base.toml"\n[train]\nlr = 0.2\n[for.ard.train]\nweight_decay = 1e-3\n')
    ard = load_recipe(own, ["method.name=ard"])
    assert (ard.train.lr, ard.train.momentum, ard.train.weight_decay) == (0.2, 0.5, 1e-3)
    assert ard.method.options.temperature == 4
    assert load_recipe(own).train.weight_decay == 5e-4


def test_a_source_that_a_recipe_names_anew_is_not_that_of_its_bases_method(write):
    write("base", 'base = "cifar10"\n[for.ard.teacher]\nname = "cifar10/Linf/Chen2021LTD_WRN34_10"\n')
    own = write("own", 'base = "base.toml"\n[teacher]\npath = "mine"\n')
    teacher = load_recipe(own, ["method.name=ard"]).teacher
    assert teacher is not None
    assert (teacher.name, teacher.path) == (None, Path("mine"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('base = "own.toml"', "its own base"),
        ('base = "none.toml"', "none.toml does not exist"),
        ('base = "none"', "there is no recipe named 'none'"),
        ("base = 3", "base is 3"),
        ("for = 3", "for must hold one table per method"),
        ("[for]\nard = 3", "for must hold one table per method"),
        ("[for.magic]", "for.magic: there is no such method"),
    ],
)
def test_a_base_or_a_method_that_there_is_not_is_refused(text, says, write):
    with pytest.raises(BadRecipe, match=re.escape(says)):
        load_recipe(write("own", text))


def test_two_recipes_on_one_another_are_refused(write):
    write("a", 'base = "b.toml"')
    with pytest.raises(BadRecipe, match=r"b\.toml -> .*a\.toml -> .*b\.toml"):
        load_recipe(write("b", 'base = "a.toml"'))


@pytest.mark.parametrize("override", ["teacher.path=runs/mine", "teacher={path='runs/mine'}"])
def test_another_source_on_the_command_line_replaces_that_of_the_recipe(override):
    teacher = load_recipe("cifar10", [override]).teacher
    assert teacher is not None
    assert (teacher.name, teacher.path) == (None, Path("runs/mine"))


def test_a_known_teacher_lies_elsewhere_where_both_are_named():
    teacher = load_recipe("cifar10", ["teacher.path=here.pt", "teacher.name=cifar10/Linf/X"]).teacher
    assert teacher is not None
    assert (teacher.name, teacher.path) == ("cifar10/Linf/X", Path("here.pt"))


def test_other_images_keep_what_the_recipe_says_of_augmentation(write):
    text = 'base = "cifar10"\n[data]\nflip = false\n[teacher]\nsha256 = "' + 64 * "0" + '"\n'
    path = write("own", text)
    data = load_recipe(path, ["data.path=images"]).data
    assert (data.name, data.path, data.holdout, data.flip) == (None, Path("images"), 1000, False)
    kept, other = (load_recipe(path, overrides).teacher for overrides in ([], ["teacher.path=runs/mine"]))
    assert kept is not None
    assert other is not None
    assert (kept.name, kept.sha256) == ("cifar10/Linf/Chen2021LTD_WRN34_20", 64 * "0")
    assert other.sha256 is None  # it was the other one's


def test_published_milestones_keep_their_place_in_another_number_of_epochs():
    assert load_recipe("cifar10", ["train.epochs=30"]).train.milestones == (15, 22.5)
    assert load_recipe("cifar10", ["train.epochs=30", "train.milestones=[]"]).train.milestones == ()


def test_milestones_for_a_method_keep_their_place_too_in_another_number_of_epochs(write):
    trades = ["method.name=trades"]
    assert load_recipe("cifar10", [*trades, "train.epochs=30"]).train.milestones == (15, 22.5)
    assert load_recipe("cifar10", [*trades, "train.epochs=30", "train.milestones=[9]"]).train.milestones == (9,)
    shorter = load_recipe(write("shorter", 'base = "cifar10"\n[train]\nepochs = 20\n'), trades).train
    assert (shorter.epochs, shorter.milestones) == (20, (10, 15))
    own = load_recipe(write("own", 'base = "cifar10"\n[train]\nepochs = 20\nmilestones = [7]\n'), trades).train
    assert (own.epochs, own.milestones) == (20, (7,))
    alone = load_recipe(write("alone", 'base = "cifar10"\n[for.trades.train]\nmilestones = [7]\n'), trades).train
    assert (alone.epochs, alone.milestones) == (200, (7,))


@pytest.mark.parametrize(
    "schedule", ["epochs = 0\nmilestones = [1]", "epochs = 2\nmilestones = ['x']", "epochs = 'x'\nmilestones = [1]"]
)
def test_a_schedule_for_a_method_that_is_none_is_refused(schedule, write):
    path = write("own", f'base = "cifar10"\n[for.trades.train]\n{schedule}\n')
    with pytest.raises(BadRecipe, match=r"train\.(epochs|milestones)"):
        load_recipe(path, ["method.name=trades"])


@pytest.mark.parametrize("epochs", ["0", "'many'", "[1]", "nan"])
def test_epochs_that_are_no_number_of_epochs_are_refused(epochs):
    with pytest.raises(BadRecipe, match=r"train\.epochs"):
        load_recipe("cifar10", [f"train.epochs={epochs}"])


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_every_method_is_documented(name):
    documented = (ROOT / "docs" / "recipes.md").read_text()
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
        (["name.x=1"], "name: Input should be a valid string"),
        (["train=1", "train.lr=1"], "not a table"),
        (["data.path=/nowhere", "data.name=cifar10"], "either name or path"),
        (["student.arch=vgg"], "resnet18"),
        (["method=3"], "method"),
        (["method.name=[1]"], "method"),
        (["train=3"], "train"),
    ],
)
def test_a_wrong_override_is_refused_and_says_why(overrides, says):
    with pytest.raises(BadRecipe, match=says):
        load_recipe("fashion-mini", overrides)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("method.nmae=adaad", "method.nmae: no such key; known: name, start, igdm, pgd-at, trades, ard"),
        ("method.adadd.alpha=1", "method.adadd: no such key; known: name, start, igdm, pgd-at"),
        ("method.adaad.alpah=1", "method.adaad.alpah: no such key; known: alpha, direction"),
        ("train.lrr=1", "train.lrr: no such key; known: epochs, max_steps"),
        ("teacher.arhc=resnet18", "teacher.arhc: no such key; known: name, path, arch"),
        ("trian.lr=1", "trian: no such key; known: name, seed, data"),
    ],
)
def test_a_key_that_there_is_not_is_told_beside_those_that_there_are(override, says):
    with pytest.raises(BadRecipe) as error:
        load_recipe("fashion-mini", [override])
    assert f"  {says}" in error.value.message


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("serch.eps=1/255", "search"),
        ("method.nmae=adaad", "name"),
        ("method.name=adada", "adaad"),
        ("method.name=AdaAD", "adaad"),
        ("method.adaad.alpah=1", "alpha"),
        ("student.arch=resnet19", "resnet18"),
        ("train.precision=fp23", "fp32"),
        ("data.augment=idhb-weak", "idbh-weak"),
    ],
)
def test_a_mistyped_key_or_name_of_a_recipe_is_refused_with_the_one_meant(override, meant):
    with pytest.raises(BadRecipe, match=rf"; did you mean {meant}\?$"):
        load_recipe("fashion-mini", [override])


def test_a_mistyped_method_of_a_table_for_one_method_is_refused_with_the_one_meant(write):
    with pytest.raises(BadRecipe, match=r"for\.adaadd: .*; did you mean adaad\?"):
        load_recipe(write("own", 'base = "cifar10"\n[for.adaadd.train]\nepochs = 2\n'))


def test_a_key_that_would_move_the_cursor_is_told_as_toml_writes_it(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('base = "fashion-mini"\n[search]\n"\\u001b[2J" = 1\n')
    with pytest.raises(BadRecipe) as error:
        load_recipe(str(recipe))
    assert r'  search."\u001b[2J": no such key; known: eps' in error.value.message


def test_of_a_method_without_fields_none_is_known():
    with pytest.raises(BadRecipe, match=r"method\.pgd-at\.x: no such key; known: none"):
        load_recipe("fashion-mini", ["method.name=pgd-at", "method.pgd-at.x=1"])


def test_our_own_checks_speak_in_their_own_words_alone():
    with pytest.raises(BadRecipe) as refused:
        load_recipe("fashion-mini", ["train.warmup=9"])
    assert refused.value.message.endswith("train.warmup: a warm-up of 9 of 4 epochs leaves none for training")


def test_a_method_that_distils_needs_a_teacher(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(load_recipe("fashion-teacher").to_toml())
    with pytest.raises(BadRecipe, match=r"needs a \[teacher\]"):
        load_recipe(str(path), ["method.name=adaad", "train.lr=-1"])


def test_igdm_is_an_option_of_every_method_that_has_a_teacher_and_of_no_other():
    for name, method in METHODS.items():
        asked = [f"method.name={name}", "method.igdm=20"]
        if method.needs_teacher:
            recipe = load_recipe("fashion-mini", asked)
            assert recipe.to_dict()["method"]["igdm"] == 20.0
            assert recipe.method.resolved().loss != method.loss
        else:
            with pytest.raises(BadRecipe, match=rf"method\.igdm: .* {name} has no teacher"):
                load_recipe("fashion-mini", asked)
    assert "igdm" not in load_recipe("fashion-mini").to_dict()["method"]


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(BadRecipe) as error:
        load_recipe("nonsense")
    assert error.value.hint is not None
    assert "fashion-mini" in error.value.hint


@pytest.mark.parametrize("command", ["distill", "teach", "study"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nonsense", "there is no {kind} named 'nonsense'"),
        ("two-cores", "there is no {kind} named 'two-cores'{meant}"),
        ("none.toml", "none.toml does not exist"),
        ("folder.toml", "folder.toml is a directory"),
    ],
)
def test_a_recipe_or_study_that_is_not_there_is_a_usage_error(command, source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    kind, own = ("study", "two-core") if command == "study" else ("recipe", "fashion-mini")
    meant = "; did you mean two-core?" if command == "study" else ""
    result = edgeproof(command, source)
    assert result.exit_code == 2
    assert f"error: {message.format(kind=kind, meant=meant)}\n" in result.stderr
    assert own in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.toml"]


def test_a_base_that_is_not_there_is_a_fault_of_the_recipe(write):
    assert edgeproof("distill", write("on", 'base = "none.toml"')).exit_code == 3


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b""])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(BadRecipe, match=r"broken\.toml"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.augment=mixup"], "'pad-crop', 'cropshift' or 'idbh-weak'"),
        (['data.augment_switch=[0, "cropshift"]'], "greater than 0"),
        (['data.augment_switch=[2, "mixup"]'], "'pad-crop', 'cropshift' or 'idbh-weak'"),
        (['data.augment_switch=[4, "cropshift"]'], "is after 4 epochs, but the run ends after 4"),
        (["data.extra.path=more.npz"], "data.extra.share"),
        (["data.extra.path=more.npz", "data.extra.share=0"], "greater than 0"),
        (["data.extra.path=more.npz", "data.extra.share=1.0"], "less than 1"),
        (["data.extra.path=more.npz", "data.extra.share=0.003"], "is none or all of a batch of 128"),
        (["data.extra.path=more.npz", "data.extra.share=0.999"], "is none or all of a batch of 128"),
    ],
)
def test_an_augmentation_or_a_share_that_cannot_be_is_refused(overrides, says):
    with pytest.raises(BadRecipe) as caught:
        load_recipe("fashion-mini", overrides)
    assert says in caught.value.message


def test_an_augmentation_with_its_switch_is_written_and_read_again(tmp_path):
    overrides = ["data.augment=cropshift", 'data.augment_switch=[3, "idbh-weak"]', "data.extra.path=more.npz"]
    recipe = load_recipe("fashion-mini", [*overrides, "data.extra.share=0.7"])
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(str(tmp_path / "again.toml")) == recipe
    assert recipe.data.augment_switch == (3, "idbh-weak")
    assert recipe.data.extra is not None


def test_extra_images_belong_to_the_set_that_is_named_with_them(write):
    path = str(write("more", 'base = "fashion-mini"\n[data.extra]\npath = "more.npz"\nshare = 0.5'))
    assert load_recipe(path).data.extra is not None
    assert load_recipe(path, ["data.path=my-images"]).data.extra is None

"""Teachers as users have them: checkpoints in the layouts of RobustBench and of people's own code, and broken ones."""

import re
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from pipeline.models import Blueprint, build_network
from pipeline.models.checkpoint import METADATA_KEY, NetworkCard, load_checkpoint, save_checkpoint
from pipeline.models.foreign import load_foreign
from pipeline.models.layers import frozen
from pipeline.recipe.tables import TeacherTable
from pipeline.runs import teacher as teachers
from pipeline.runs.directory import TeacherFigures
from pipeline.runs.teacher import TEACHERS, KnownTeacher, Teacher, load_teacher, teacher_architecture
from runtime.bundle.manifest import InputShape
from runtime.cli import main
from runtime.errors import BadModel, BadRecipe
from runtime.files import sha256

TINY = Blueprint(arch="wideresnet", depth=10, width=0.5)
CARD = NetworkCard(
    arch="resnet18",
    input=InputShape(channels=3, height=16, width=16),
    classes=tuple("abcde"),
    mean=(0.4,) * 3,
    std=(0.2,) * 3,
)
NORMALISED = {"mu": torch.full((1, 3, 1, 1), 0.4), "sigma": torch.full((1, 3, 1, 1), 0.2)}


class Anything:
    """What a checkpoint must not bring along."""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return build_network("wideresnet", channels=3, classes=5, width=0.5, depth=10).eval()


def sub_block(weights):
    """The weights with a copy of the first group under the name of the one that is never used."""
    extra = {name.replace("block1.", "sub_block1.", 1): t for name, t in weights.items() if name.startswith("block1.")}
    return weights | extra


def prefixed(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


def load(path, **changes):
    return load_foreign(path, TINY, channels=3, classes=5, **changes)


def write(path, content):
    torch.save(content, path)
    return path


LAYOUTS = {
    "plain": dict,
    "of DataParallel": lambda weights: prefixed("module.", weights),
    "wrapped": lambda weights: prefixed("model.", weights),
    "wrapped, of DataParallel": lambda weights: prefixed("module.model.", weights),
    "nested": lambda weights: {"epoch": 3, "state_dict": prefixed("module.", weights)},
    "nested twice": lambda weights: {"model": {"state_dict": weights}},
    "with an unused sub-block": lambda weights: prefixed("module.", sub_block(weights)),
    "before PyTorch counted batches": lambda weights: {
        name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")
    },
    "under net": lambda weights: {"net": weights, "acc": 81.2, "epoch": 9},
    "under params": lambda weights: {"params": weights},
    "an average alone": lambda weights: {"ema": prefixed("module.", weights), "optimizer": {"state": {}}},
    "an average that is the model": lambda weights: {"model": weights, "ema": dict(weights)},
    "compiled": lambda weights: prefixed("_orig_mod.", weights),
    "compiled, of DataParallel": lambda weights: {"model": prefixed("module._orig_mod.", weights)},
    "averaged by PyTorch": lambda weights: {"n_averaged": torch.tensor(7), **prefixed("module.", weights)},
    "ordered": lambda weights: OrderedDict(sub_block(weights)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_foreign_checkpoint_answers_as_the_network_that_it_was_saved_from(layout, network, tmp_path):
    path = write(tmp_path / "teacher.pt", LAYOUTS[layout](network.state_dict()))
    x = torch.rand(2, 3, 16, 16)
    loaded = load(path)
    assert not loaded.training
    assert torch.equal(loaded(x), network(x))


TWO_SETS = {
    "model and ema": (lambda ours, other: {"model": ours, "ema": other}, ("model", "ema")),
    "timm's": (lambda ours, other: {"state_dict": ours, "state_dict_ema": other}, ("state_dict", "state_dict_ema")),
    "inside": (lambda ours, other: {"model": {"net": ours, "ema": other}}, ("model.net", "model.ema")),
    "in one": (lambda ours, other: prefixed("model.", ours) | prefixed("ema_model.", other), ("model.", "ema_model.")),
}


@pytest.mark.parametrize("layout", TWO_SETS)
def test_of_two_sets_of_weights_none_is_guessed(layout, network, tmp_path):
    build, names = TWO_SETS[layout]
    weights = network.state_dict()
    path = write(tmp_path / "teacher.pt", build(weights, {name: tensor + 1 for name, tensor in weights.items()}))
    with pytest.raises(BadModel, match="and different ones under") as error:
        load(path)
    assert all(f"under {name}" in error.value.message for name in names)
    assert "torch.save" in error.value.hint


def test_what_is_taken_of_a_file_is_said(network, tmp_path, capsys):
    load(write(tmp_path / "teacher.pt", {"model": {"ema": network.state_dict()}}))
    assert "teacher.pt: loading the weights under model.ema" in capsys.readouterr().err


def test_keys_of_a_file_without_weights_are_named(tmp_path):
    path = write(tmp_path / "teacher.pt", {"student": {"fc.weight": torch.zeros(2)}, "epoch": 3})
    with pytest.raises(BadModel, match="holds no weights by name; its keys are student, epoch"):
        load(path)


def test_the_old_format_of_pytorch_is_read_too(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(load(tmp_path / "old.pt")(x), network(x))


def test_images_are_raw_unless_the_file_or_the_recipe_names_a_normalisation(network, tmp_path):
    path, x = write(tmp_path / "raw.pt", network.state_dict()), torch.rand(2, 3, 16, 16)
    normalised = write(tmp_path / "normalised.pt", network.state_dict() | NORMALISED)
    expected = network((x - 0.4) / 0.2)
    torch.testing.assert_close(load(path)(x), network(x))
    torch.testing.assert_close(load(path, mean=(0.4,) * 3, std=(0.2,) * 3)(x), expected)
    torch.testing.assert_close(load(normalised)(x), expected)
    with pytest.raises(BadModel, match="1 values, but the images have 3 channels"):
        load(path, mean=(0.4,), std=(0.2,) * 3)


@pytest.mark.parametrize(("kept", "missing"), [("mu", "std"), ("sigma", "mean")])
def test_half_a_normalisation_in_the_file_or_the_recipe_is_refused(network, tmp_path, kept, missing):
    assert set(NORMALISED) == {"mu", "sigma"}
    half = write(tmp_path / "half.pt", network.state_dict() | {kept: NORMALISED[kept]})
    with pytest.raises(BadModel, match=f"no {missing}$"):
        load(half)
    raw, given = write(tmp_path / "raw.pt", network.state_dict()), "std" if missing == "mean" else "mean"
    with pytest.raises(BadModel, match=f"no {missing}$"):
        load(raw, **{given: (0.4,) * 3})


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        ({"sigma": torch.zeros(3)}, "the std of its images has 0"),
        ({"sigma": torch.full((3,), -0.2)}, "the std of its images has -0.2"),
        ({"mu": torch.full((3,), float("nan"))}, "the mean of its images has nan"),
        ({"mean": torch.full((3,), 0.5)}, "weights under mu and different ones under mean"),
    ],
)
def test_a_normalisation_that_no_network_can_have_or_of_which_there_are_two_is_refused(
    recorded, says, network, tmp_path
):
    path = write(tmp_path / "teacher.pt", network.state_dict() | NORMALISED | recorded)
    with pytest.raises(BadModel, match=says):
        load(path)


def test_an_empty_normalisation_of_the_recipe_is_not_taken_for_none(network, tmp_path):
    path = write(tmp_path / "teacher.pt", network.state_dict())
    with pytest.raises(BadModel, match="0 values, but the images have 3 channels"):
        load(path, mean=(), std=())


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "stored",
    [
        torch.Tensor.to_sparse,
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(torch.complex64),
        lambda weight: weight.to(torch.int32),
    ],
)
@pytest.mark.parametrize("name", ["fc.weight", "mu"])
def test_weights_that_are_no_dense_floats_are_refused(name, stored, network, tmp_path):
    weights = network.state_dict() | NORMALISED
    path = write(tmp_path / "teacher.pt", weights | {name: stored(weights[name])})
    with pytest.raises(BadModel, match=rf"not stored as dense floating-point numbers: {name} "):
        load(path)


def test_weights_in_half_precision_are_read_with_their_counters(network, tmp_path):
    path = write(tmp_path / "teacher.pt", {name: tensor.half() for name, tensor in network.state_dict().items()})
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(load(path)(x), network(x), rtol=0.05, atol=0.05)


def test_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path):
    path = write(tmp_path / "teacher.pt", {"state_dict": Anything()})
    with pytest.raises(BadModel, match="could run code") as error:
        load(path)
    assert "state_dict()" in error.value.hint


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0, 1, 3, 1000, 0.5, 0.99])
def test_a_truncated_file_is_refused(zipped, keep, network, tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep > 1 or isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(BadModel, match="damaged") as error:
        load(path)
    assert "download it again" in error.value.hint


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_weights_is_refused(content, tmp_path):
    with pytest.raises(BadModel, match="no weights"):
        load(write(tmp_path / "teacher.pt", content))


@pytest.mark.parametrize(
    ("arch", "changes", "says"),
    [
        ("wideresnet", {"depth": 16, "width": 0.5}, "depth 16 and width 0.5"),
        ("wideresnet", {"depth": 10, "width": 1.0}, "depth 10 and width 1"),
        ("resnet18", {"width": 0.125}, "not those of a WideResNet"),
    ],
)
def test_another_architecture_is_refused_and_its_shapes_are_told(arch, changes, says, tmp_path):
    other = build_network(arch, channels=3, classes=5, **changes)
    with pytest.raises(BadModel, match=r"no wideresnet of width 0\.5 and depth 10") as error:
        load(write(tmp_path / "teacher.pt", other.state_dict()))
    assert says in error.value.hint


def test_another_number_of_classes_is_refused(network, tmp_path):
    path = write(tmp_path / "teacher.pt", network.state_dict())
    with pytest.raises(BadModel, match="has 5 classes, but the data has 7"):
        load_foreign(path, TINY, channels=3, classes=7)


def foreign(path, **changes):
    return TeacherTable(path=path, arch="wideresnet", depth=10, width=0.5, **changes)


def test_a_web_page_in_place_of_a_checkpoint_says_that_it_is_one(tmp_path):
    path = tmp_path / "teacher.pt"
    path.write_text("\n <!DOCTYPE html><title>Google Drive - Quota exceeded</title>")
    for table in (
        foreign(path),
        TeacherTable(path=path),
        TeacherTable(name="cifar10/Linf/Chen2021LTD_WRN34_10", path=path),
    ):
        with pytest.raises(BadModel, match="web page") as error:
            load_teacher(table, CARD)
        assert "browser" in error.value.hint


def test_a_digest_in_the_recipe_is_held_to_before_the_file_is_read(network, tmp_path):
    path = write(tmp_path / "teacher.pt", network.state_dict())
    digest = sha256(path.read_bytes())
    assert load_teacher(foreign(path, sha256=digest), CARD)[1] == digest
    path.write_bytes(b"PK anything else")
    with pytest.raises(BadModel, match="is not the expected file"):
        load_teacher(foreign(path, sha256=digest), CARD)


def test_a_foreign_file_is_vouched_for_by_a_digest_and_else_told_with_its_own(network, tmp_path):
    path = write(tmp_path / "teacher.pt", network.state_dict())
    digest = sha256(path.read_bytes())
    for table, vouched in ((foreign(path), False), (foreign(path, sha256=digest), True)):
        loaded = Teacher(*load_teacher(table, CARD), TeacherFigures(n=40, clean=0.5, pgd=0.25))
        assert loaded.vouched == vouched
        assert f'sha256 = "{digest}"' in str(loaded)
        assert "clean 50.0 %, PGD-10 25.0 % on 40" in str(loaded)
        assert ("no digest" in str(loaded)) == (not vouched)


def test_a_teacher_known_by_name_lies_where_robustbench_puts_it_or_at_the_path(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "cifar10/Linf/Tiny"
    usual = teachers.MODELS / f"{name}.pt"
    usual.parent.mkdir(parents=True)
    write(usual, prefixed("module.", network.state_dict()))
    digest = sha256(usual.read_bytes())
    monkeypatch.setitem(TEACHERS, name, KnownTeacher(usual, digest, TINY))
    usual.rename(tmp_path / "elsewhere.pt")
    assert load_teacher(TeacherTable(name=name, path=tmp_path / "elsewhere.pt"), CARD)[1] == digest
    with pytest.raises(BadModel, match=r"models/cifar10/Linf/Tiny\.pt"):
        load_teacher(TeacherTable(name=name), CARD)
    (tmp_path / "elsewhere.pt").rename(usual)
    assert load_teacher(TeacherTable(name=name), CARD)[1] == digest
    monkeypatch.setitem(TEACHERS, name, KnownTeacher(usual, "0" * 64, TINY))
    with pytest.raises(BadModel, match="not the expected file"):
        load_teacher(TeacherTable(name=name), CARD)
    assert load_teacher(TeacherTable(name=name, sha256=digest), CARD)[1] == digest


def test_the_published_teachers_are_known_with_their_networks():
    published = {name: known for name, known in TEACHERS.items() if "Chen2021LTD" in name}
    assert {name: known.foreign.width for name, known in published.items()} == {
        "cifar10/Linf/Chen2021LTD_WRN34_20": 20,
        "cifar10/Linf/Chen2021LTD_WRN34_10": 10,
        "cifar100/Linf/Chen2021LTD_WRN34_10": 10,
    }
    assert {(known.foreign.arch, known.foreign.depth) for known in published.values()} == {("wideresnet", 34)}


def test_deepminds_teachers_are_known_by_the_depth_and_width_in_their_names():
    deepmind = {
        name: known for name, known in TEACHERS.items() if known.foreign and known.foreign.arch.startswith("dm")
    }
    assert len(deepmind) == 7
    for name, known in deepmind.items():
        depth, width = map(int, re.findall(r"_(?:WRN-)?(\d+)[_-](\d+)", name)[0])
        assert (known.foreign.depth, known.foreign.width) == (depth, width)
        assert known.path == teachers.MODELS / f"{name}.pt"
        assert known.normalised == ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


DM = Blueprint(arch="dm_wideresnet", depth=16, width=1.5)


@pytest.fixture(scope="module")
def published():
    """Weights in the published layout, by name and shape, made without our network."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator) * 0.2

    def norm(name, channels):
        return {
            f"{name}.weight": 1 + normal(channels), f"{name}.bias": normal(channels),
            f"{name}.running_mean": normal(channels), f"{name}.running_var": 1 + normal(channels).abs(),
            f"{name}.num_batches_tracked": torch.tensor(7),
        }  # fmt: skip

    weights = {"mean": torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), "std": torch.tensor([0.25, 0.2, 0.3]).view(3, 1, 1)}
    weights["init_conv.weight"] = normal(16, 3, 3, 3)
    inputs = 16
    for group, outputs in enumerate((24, 48, 96)):
        for block in range(2):
            name = f"layer.{group}.block.{block}"
            weights |= norm(f"{name}.batchnorm_0", inputs) | norm(f"{name}.batchnorm_1", outputs)
            weights[f"{name}.conv_0.weight"] = normal(outputs, inputs, 3, 3)
            weights[f"{name}.conv_1.weight"] = normal(outputs, outputs, 3, 3)
            if block == 0:
                weights[f"{name}.shortcut.weight"] = normal(outputs, inputs, 1, 1)
            inputs = outputs
    return weights | norm("batchnorm", 96) | {"logits.weight": normal(5, 96), "logits.bias": normal(5)}


def as_published(weights, x, mean, std):
    """The published network, written from its paper's code by the names of its weights alone."""

    def normed(name, x):
        statistics = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *statistics)
        return x * torch.sigmoid(x)

    x = F.conv2d((x - mean) / std, weights["init_conv.weight"], padding=1)
    for group in range(3):
        for block in range(2):
            name, stride = f"layer.{group}.block.{block}", 2 if group and not block else 1
            active = normed(f"{name}.batchnorm_0", x)
            padded = F.pad(active, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
            branch = normed(f"{name}.batchnorm_1", F.conv2d(padded, weights[f"{name}.conv_0.weight"], stride=stride))
            branch = F.conv2d(branch, weights[f"{name}.conv_1.weight"], padding=1)
            x = branch + (x if block else F.conv2d(active, weights[f"{name}.shortcut.weight"], stride=stride))
    x = F.avg_pool2d(normed("batchnorm", x), 8).flatten(1)
    return F.linear(x, weights["logits.weight"], weights["logits.bias"])


@pytest.mark.parametrize("layout", [lambda weights: weights, lambda weights: prefixed("module.", weights)])
def test_deepminds_layout_answers_as_published_with_the_normalisation_of_its_file(layout, published, tmp_path):
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network = load_foreign(write(tmp_path / "dm.pt", layout(published)), DM, channels=3, classes=5)
    expected = as_published(published, x, published["mean"], published["std"])
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(frozen(network)(x), expected, rtol=1e-3, atol=1e-3)


def test_a_normalisation_is_the_recipes_else_the_files_else_the_known_teachers(published, tmp_path, monkeypatch):
    plain = {name: tensor for name, tensor in published.items() if name not in ("mean", "std")}
    x = torch.rand(2, 3, 32, 32)
    usual = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    monkeypatch.setitem(TEACHERS, "dm", KnownTeacher(tmp_path / "dm.pt", None, DM, usual))
    card = CARD.model_copy(update={"input": InputShape(channels=3, height=32, width=32)})
    for weights, table, (mean, std) in (
        (plain, {}, usual),
        (published, {}, (published["mean"], published["std"])),
        (published, {"path": tmp_path / "dm.pt"}, (published["mean"], published["std"])),
    ):
        write(tmp_path / "dm.pt", weights)
        network = load_teacher(TeacherTable(name="dm", **table), card)[0]
        mean, std = (torch.as_tensor(value).view(3, 1, 1) for value in (mean, std))
        torch.testing.assert_close(network(x), as_published(published, x, mean, std), rtol=1e-4, atol=1e-4)
    named = TeacherTable(path=tmp_path / "dm.pt", **DM.model_dump(), mean=(0.2,) * 3, std=(0.4,) * 3)
    expected = as_published(published, x, 0.2, 0.4)
    torch.testing.assert_close(load_teacher(named, card)[0](x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", ["", "mean", "std"])
def test_deepminds_network_at_a_path_is_refused_without_a_normalisation(kept, published, tmp_path):
    """Its published files record none, and they were trained on normalised images: raw ones would teach nonsense."""
    left_out = {"mean", "std"} - {kept}
    plain = {name: tensor for name, tensor in published.items() if name not in left_out}
    path, x = write(tmp_path / "dm.pt", plain), torch.rand(2, 3, 32, 32)
    card = CARD.model_copy(update={"input": InputShape(channels=3, height=32, width=32)})
    with pytest.raises(
        BadModel, match=f"normalisation of its images: no {' and no '.join(sorted(left_out))}"
    ) as caught:
        load_teacher(TeacherTable(path=path, **DM.model_dump()), card)
    assert "teacher.mean" in caught.value.hint
    raw = TeacherTable(path=path, **DM.model_dump(), mean=(0.0,) * 3, std=(1.0,) * 3)
    torch.testing.assert_close(load_teacher(raw, card)[0](x), as_published(plain, x, 0, 1), rtol=1e-4, atol=1e-4)


def test_another_wide_network_is_told_by_its_keys(published, network, tmp_path):
    with pytest.raises(BadModel) as caught:
        load_foreign(write(tmp_path / "dm.pt", published), TINY, channels=3, classes=5)
    assert "not those of a WideResNet" in caught.value.hint
    with pytest.raises(BadModel) as caught:
        load_foreign(write(tmp_path / "other.pt", network.state_dict()), DM, channels=3, classes=5)
    assert "DeepMind's" in caught.value.hint
    wider = DM.model_copy(update={"width": 2.0})
    with pytest.raises(BadModel) as caught:
        load_foreign(write(tmp_path / "dm.pt", published), wider, channels=3, classes=5)
    assert "depth 16 and width 1.5" in caught.value.hint


def test_weights_of_the_same_shapes_that_were_trained_with_relu_are_not_taken_for_deepminds(tmp_path):
    relu = build_network("wideresnet", channels=3, classes=5, width=DM.width, depth=DM.depth)
    assert relu.state_dict().keys() == build_network(**DM.model_dump(), channels=3, classes=5).state_dict().keys()
    with pytest.raises(BadModel) as caught:
        load_foreign(write(tmp_path / "relu.pt", relu.state_dict()), DM, channels=3, classes=5)
    assert "not those of DeepMind's WideResNet" in caught.value.hint


def test_a_checkpoint_of_ours_that_kept_deepminds_names_loads(published, tmp_path):
    card = CARD.model_copy(
        update=DM.model_dump()
        | {"input": InputShape(channels=3, height=32, width=32), "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3)}
    )
    normal = {"normalize.mean": published["mean"], "normalize.std": published["std"]}
    weights = {name: tensor for name, tensor in published.items() if name not in ("mean", "std")} | {
        name: normal[name] for name in card.build().state_dict() if name in normal
    }
    metadata = {METADATA_KEY: card.model_dump_json()}
    (tmp_path / "old.safetensors").write_bytes(safetensors.torch.save(weights, metadata=metadata))
    x = torch.rand(2, 3, 32, 32)
    loaded, _ = load_checkpoint(tmp_path / "old.safetensors")
    expected = as_published(published, x, published["mean"], published["std"])
    torch.testing.assert_close(loaded.eval()(x), expected, rtol=1e-4, atol=1e-4)
    save_checkpoint(tmp_path / "new.safetensors", loaded, card)
    torch.testing.assert_close(
        load_checkpoint(tmp_path / "new.safetensors")[0].eval()(x), expected, rtol=1e-4, atol=1e-4
    )


def test_a_directory_is_no_known_teacher_and_the_hint_says_how_to_name_a_run(tmp_path):
    with pytest.raises(BadRecipe, match="directory") as error:
        load_teacher(TeacherTable(name="cifar10/Linf/Chen2021LTD_WRN34_10", path=tmp_path), CARD)
    assert "leave the name out" in error.value.hint


def test_a_pytorch_file_without_a_word_on_its_network_is_refused(network, tmp_path):
    path = write(tmp_path / "teacher.pt", network.state_dict())
    with pytest.raises(BadModel, match="does not record its network") as error:
        load_teacher(TeacherTable(path=path), CARD)
    assert "arch" in error.value.hint


def test_a_mistyped_teacher_is_told_before_data_are_needed(tmp_path):
    missing = ("--set", "data.path=nowhere", "--set", "teacher.name=nobody")
    result = CliRunner().invoke(main, ["distill", "fashion-mini", "--out", str(tmp_path / "run"), *missing])
    assert result.exit_code == 3
    assert "there is no teacher named 'nobody'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["teacher.path=none.safetensors"], 3, "no teacher at"),
        (["teacher.name=nobody"], 3, "known: fashion-mini"),
        (["teacher.depth=34"], 3, "name its arch"),
        (["teacher.arch=wideresnet", "teacher.name=x", "teacher.path=y"], 3, "no name"),
        (["teacher.path=x", "teacher.arch=vgg"], 3, "wideresnet"),
        (["teacher.path=x", "teacher.sha256=abc"], 3, "sha256"),
    ],
)
def test_a_teacher_that_cannot_be_is_one_line_on_stderr_and_no_traceback(arguments, code, says, tmp_path):
    overrides = [part for override in arguments for part in ("--set", override)]
    result = CliRunner().invoke(main, ["distill", "fashion-mini", "--out", str(tmp_path / "run"), *overrides])
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_network_of_a_teacher_is_known_while_the_file_that_taught_is_there(tmp_path):
    own = tmp_path / "own.safetensors"
    save_checkpoint(
        own, build_network("resnet18", channels=3, classes=5, width=0.1), CARD.model_copy(update={"width": 0.1})
    )
    digest = sha256(own.read_bytes())
    assert teacher_architecture(TeacherTable(path=own), digest) == "resnet18, width 0.1"
    assert teacher_architecture(TeacherTable(path=own), "0" * 64) is None
    assert teacher_architecture(TeacherTable(path=tmp_path / "gone"), digest) is None
    assert teacher_architecture(TeacherTable(path=own), None) is None
    assert teacher_architecture(None, digest) is None
    foreign = TeacherTable(path=tmp_path / "net.pt", arch="wideresnet", depth=34, width=10)
    assert teacher_architecture(foreign, digest) == "wideresnet, depth 34, width 10"

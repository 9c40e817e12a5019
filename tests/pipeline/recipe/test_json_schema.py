"""The JSON schema of recipes, by which editors complete: it takes what the reader takes, and no wrong key or type."""

import json
import tomllib

import jsonschema
import pytest

from pipeline.methods import METHODS
from pipeline.recipe.file import BASE, FOR
from pipeline.recipe.json_schema import recipe_schema
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.recipe.source import names_of, read_source
from runtime.errors import BadRecipe
from tests.command_line import edgeproof

SCHEMA = recipe_schema()
TAKES = jsonschema.Draft202012Validator(SCHEMA)
WRONG = (
    "nonsense.x = 1",
    "data.nonsense = 1",
    "data.holdout = 'many'",
    "data.holdout = 0",
    "data.flip = 'no way'",
    "data.size = 'large'",
    "data.augment = 'none'",
    "data.augment_switch = [1, 'none']",
    "student.arch = 'resnet'",
    "student.width = 0",
    "method.name = 'nonsense'",
    "method.start = 'somewhere'",
    "method.adaad.alpha = 3",
    "method.adaad.beta = 1",
    "teacher.sha256 = 'abc'",
    "teacher.std = [0]",
    "search.eps = '8/nothing'",
    "search.eps = 5",
    "search.steps = 1.5",
    "train.lr = -1",
    "train.ema = 1.5",
    "train.milestones = 3",
    "train.schedule = 'falling'",
    "threat.norm = 'l2'",
    "gate.fail_under = 'most'",
    "gate.max_drop = 1",
    "resources.gpus = 2",
    "for.nonsense.train.epochs = 1",
    "for.adaad.train.epoch = 1",
    "for.adaad.train.epochs = 'some'",
    "base = 1",
)
RIGHT = (
    "data.size = 224",
    "data.size = '96x128'",
    "data.size = '256:224'",
    "data.augment_switch = [1, 'idbh-weak']",
    "method.start = 'published'",
    "search.eps = '8/255'",
    "search.eps = '3%'",
    "search.eps = 0.03",
    "train.ema = true",
    "train.ema = 0.99",
    "train.milestones = [1, 1.5]",
    "gate.fail_under = '45%'",
    "gate.max_drop = '1%'",
    "resources.gpus = 0.5",
    "for.adaad.train.epochs = 8",
)


def written(line):
    """Return a recipe on fashion-mini with one more line; its images are a folder, which may have a size."""
    line = line if line.startswith("base") else f"base = 'fashion-mini'\n{line}"
    return f"name = 'mine'\ndata.path = 'pictures'\n{line}\n"


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", names_of("recipe"))
def test_it_takes_every_packaged_recipe_also_when_resolved(name):
    TAKES.validate(tomllib.loads(read_source(name, "recipe")))
    TAKES.validate(tomllib.loads(load_recipe(name).to_toml()))


@pytest.mark.parametrize("line", RIGHT)
def test_it_takes_what_the_reader_takes(line, tmp_path):
    (tmp_path / "mine.toml").write_text(written(line))
    load_recipe(str(tmp_path / "mine.toml"))
    TAKES.validate(tomllib.loads(written(line)))


@pytest.mark.parametrize("line", WRONG)
def test_it_refuses_what_the_reader_refuses(line, tmp_path):
    (tmp_path / "mine.toml").write_text(written(line))
    with pytest.raises(BadRecipe):
        load_recipe(str(tmp_path / "mine.toml"), ["method.name=adaad"] if line.startswith("for.adaad") else [])
    assert list(TAKES.iter_errors(tomllib.loads(written(line))))


@pytest.mark.parametrize("missing", ["name", "data", "student", "method", "train"])
def test_a_recipe_without_a_base_says_what_one_with_a_base_need_not(missing, tmp_path):
    recipe = load_recipe("fashion-mini").to_dict()
    del recipe[missing]
    assert list(TAKES.iter_errors(recipe))
    TAKES.validate(recipe | {BASE: "fashion-mini"})


def test_every_table_key_and_method_is_in_it():
    tables = SCHEMA["$defs"]
    assert SCHEMA["properties"].keys() == Recipe.model_fields.keys() | {BASE, FOR}
    assert METHODS.keys() <= tables["MethodTable"]["properties"].keys()
    assert SCHEMA["properties"][FOR]["properties"].keys() == METHODS.keys()
    for key, method in METHODS.items():
        options = tables["MethodTable"]["properties"][key]["$ref"].rpartition("/")[2]
        assert tables[options].get("properties", {}).keys() == method.options.model_fields.keys()


def test_the_command_prints_it():
    result = edgeproof("recipes", "--schema")
    assert (result.exit_code, json.loads(result.stdout)) == (0, SCHEMA)

"""Study files: what they expand to, and what they refuse."""

import pytest

from pipeline.methods import METHODS
from pipeline.recipe.source import names_of
from pipeline.study.plan import Study, expand, load_study
from pipeline.study.run import needs
from runtime.errors import BadRecipe
from tests.paths import ROOT

MINIMAL = {
    "name": "s", "recipe": "fashion-mini", "methods": ["adaad", "trades"], "students": ["resnet18", "mobilenet_v2"],
    "evaluation": [{"name": "e", "attacks": ["pgd"]}],
}  # fmt: skip


def test_a_study_expands_to_methods_times_students_times_radii_times_seeds():
    cells = expand(Study.model_validate({**MINIMAL, "radii": ["8/255", "16/255"], "step": 0.25, "seeds": [3, 5]}))
    assert len(cells) == len({cell.name for cell in cells}) == 16
    for cell in cells:
        recipe = cell.recipe
        assert (recipe.method.name, recipe.student.arch, recipe.seed) == (cell.method, cell.student, cell.seed)
        assert recipe.search.step == pytest.approx(recipe.search.eps / 4)
        assert recipe.threat.eps == pytest.approx(8 / 255)
        assert recipe.name == cell.name


def test_the_first_seed_of_every_row_comes_before_the_second_of_any():
    cells = expand(Study.model_validate({**MINIMAL, "seeds": [7, 1]}))
    assert [cell.seed for cell in cells] == [7] * 4 + [1] * 4


def test_without_radii_the_search_is_the_recipes_own():
    assert {cell.recipe.search.step for cell in expand(Study.model_validate(MINIMAL))} == {5 / 255}


def test_a_method_and_a_student_can_have_seeds_and_overrides_of_their_own():
    own = {
        "set": ["train.epochs=2", "student.width=0.125"],
        "method": {"adaad": {"seeds": [0, 1], "set": ["train.epochs=3"]}},
        "student": {"mobilenet_v2": {"set": ["student.width=0.5"]}},
    }
    cells = {cell.name: cell.recipe for cell in expand(Study.model_validate({**MINIMAL, **own}))}
    assert set(cells) == {
        "resnet18-adaad-seed0", "resnet18-adaad-seed1", "mobilenet_v2-adaad-seed0", "mobilenet_v2-adaad-seed1",
        "resnet18-trades-seed0", "mobilenet_v2-trades-seed0",
    }  # fmt: skip
    assert cells["resnet18-adaad-seed1"].train.epochs == 3
    assert cells["resnet18-trades-seed0"].train.epochs == 2
    assert cells["mobilenet_v2-trades-seed0"].student.width == 0.5
    assert cells["resnet18-trades-seed0"].student.width == 0.125


@pytest.mark.parametrize(
    "override", ["name=mine", "seed=7", "method.name=pgd-at", "student.arch=wideresnet", "student={arch='wideresnet'}"]
)
@pytest.mark.parametrize("place", ["study", "method", "student"])
def test_no_override_changes_what_a_cell_is_called_after(override, place):
    own = {"set": [override]}
    said = {"study": own, "method": {"method": {"adaad": own}}, "student": {"student": {"resnet18": own}}}[place]
    for cell in expand(Study.model_validate({**MINIMAL, **said})):
        recipe = cell.recipe
        assert recipe.name == f"{cell.student}-{cell.method}-seed{cell.seed}"
        assert (recipe.method.name, recipe.student.arch, recipe.seed) == (cell.method, cell.student, cell.seed)


@pytest.mark.parametrize(
    ("twice", "called"),
    [
        ({"seeds": [0, 0]}, "resnet18-adaad-seed0"),
        ({"methods": ["adaad", "adaad"]}, "resnet18-adaad-seed0"),
        ({"students": ["mobilenet_v2", "mobilenet_v2"]}, "mobilenet_v2-adaad-seed0"),
        ({"method": {"trades": {"seeds": [4, 4]}}}, "resnet18-trades-seed4"),
        ({"radii": ["8/255", 8.0000001 / 255], "step": 0.25}, "resnet18-adaad-8-seed0"),
    ],
)
def test_a_study_that_has_a_cell_twice_is_refused(twice, called):
    with pytest.raises(BadRecipe, match=f"{called} twice"):
        expand(Study.model_validate({**MINIMAL, **twice}))


@pytest.mark.parametrize("name", names_of("study"))
def test_every_study_that_ships_is_resolved(name):
    study = load_study(name)
    assert study.name == name
    assert len({cell.name for cell in expand(study)}) == len(expand(study))


def test_the_papers_table_has_its_sixteen_rows_with_each_methods_published_schedule():
    cells = expand(load_study("paper-cifar10"))
    assert {(cell.student, cell.method) for cell in cells} == {
        (student, method) for student in ("resnet18", "mobilenet_v2") for method in METHODS if method != "adr"
    }
    for cell in cells:
        assert cell.recipe.train.weight_decay == METHODS[cell.method].schedule.weight_decay
        assert (cell.recipe.search.steps, cell.recipe.search.eps) == (10, pytest.approx(8 / 255))
    assert {cell.recipe.train.epochs for cell in cells if cell.method == "trades"} == {200}
    assert {cell.recipe.teacher.name for cell in cells} == {"cifar10/Linf/Chen2021LTD_WRN34_20"}


def test_the_radius_study_keeps_the_step_a_quarter_and_the_threat_where_it_is():
    cells = expand(load_study("radius-cifar10"))
    assert {round(255 * cell.radius) for cell in cells} >= {8, 10, 12, 14, 16, 20}
    assert all(cell.recipe.search.step == pytest.approx(cell.radius / 4) for cell in cells)
    assert {round(255 * cell.recipe.threat.eps, 6) for cell in cells} == {8}


def test_the_two_core_study_has_28_cells_of_one_reduction():
    cells = expand(load_study("two-core"))
    assert len(cells) == 28
    assert {(c.recipe.train.reduction, c.recipe.train.epochs, c.recipe.student.width) for c in cells} == {
        ("batchmean", 5, 0.125)
    }


def test_the_study_that_was_measured_is_the_one_that_ships_but_for_the_precision():
    measured = load_study(str(ROOT / "docs/studies/two-core/study.toml"))
    assert measured.model_copy(update={"student": {}}) == load_study("two-core")
    assert {(cell.student, cell.recipe.train.precision) for cell in expand(measured)} == {
        ("resnet18", "bf16"),
        ("mobilenet_v2", "fp32"),
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("methods = ['pgd-at', 'pgd']", "methods.1"),
        ("students = []", "students"),
        ("radii = ['8/255']", "radii need a step"),
        ("published = 'nowhere'", "cifar10-wrn34-20"),
        ("colour = 1", "colour: no such key; known: name, title, recipe"),
        ("[method.adaad]\nsetz = []", "method.adaad.setz: no such key; known: set, seeds"),
        (
            "[[evaluation]]\nname = 'e'\nattack = ['pgd']",
            "evaluation.1.attack: no such key; known: name, attacks, n, batch",
        ),
        ("[method.pgd]\nseeds = [1]", "method.pgd"),
        ("[[evaluation]]\nname = 'e'\nattacks = ['none']", "evaluation.1.attacks.0"),
        ("[[evaluation]]\nname = 'gradient'\nattacks = ['fgsm']", "two evaluations"),
        ("[[evaluation]]\nname = 'run'\nattacks = ['fgsm']", "training run"),
        ("name = 1 = 2", "study"),
    ],
)
def test_a_wrong_study_is_refused_with_the_place(study_file, change, says):
    key = change.partition(" =")[0]
    lines = [line for line in study_file.read_text().splitlines() if line.partition(" =")[0] != key or "[" in key]
    study_file.write_text("\n".join([change, *lines] if "[" not in key else [*lines, change]))
    with pytest.raises(BadRecipe, match="study") as caught:
        load_study(str(study_file))
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("asked", "says"),
    [("resources.gpu=1", "resources.gpu: no such key; known: cpus, gpus"), ("resources.gpus=2", "resources.gpus: ")],
)
def test_resources_that_no_cell_can_take_are_refused_with_their_key(asked, says):
    with pytest.raises(BadRecipe, match=says):
        expand(Study.model_validate({**MINIMAL, "set": [asked]}))


def test_a_cell_takes_of_a_cluster_what_its_recipe_says_and_else_one_gpu_where_there_are_any():
    said = {"students": ["resnet18", "mobilenet_v2"], "student": {"mobilenet_v2": {"set": ["resources.gpus=0.5"]}}}
    silent, half = expand(Study.model_validate({**MINIMAL, "methods": ["adaad"], **said}))
    assert needs(silent, has_gpus=True) == {"num_cpus": 1, "num_gpus": 1}
    assert needs(silent, has_gpus=False) == {"num_cpus": 1, "num_gpus": 0}
    assert needs(half, has_gpus=True) == {"num_cpus": 1, "num_gpus": 0.5}
    of_the_paper = needs(expand(load_study("paper-cifar10"))[0], has_gpus=True)
    assert of_the_paper == {"num_cpus": 4, "num_gpus": 1}


def test_an_unknown_study_is_refused_with_those_that_ship():
    with pytest.raises(BadRecipe) as caught:
        load_study("nowhere")
    assert "two-core" in str(caught.value.hint)

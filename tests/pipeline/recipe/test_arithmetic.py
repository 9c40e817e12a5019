"""The arithmetic of a recipe is that of its passes, each counted by hand; the documentation says what is counted."""

import pytest

from benchmarks.arithmetic import RATE, built, hours, operations
from pipeline.models import Blueprint
from pipeline.recipe.schema import load_recipe
from tests.paths import ROOT

SMALL = Blueprint(arch="resnet18", width=0.25)
FORWARD = 2 * 555_000_000
"""Of a full-width ResNet-18 at 32 x 32, two for each of 555 M multiply-adds."""


def flops(method, *overrides):
    return operations(load_recipe("cifar10", [f"method.name={method}", *overrides]), Blueprint(arch="resnet18"))


def test_a_step_takes_as_many_passes_as_its_method_says():
    """A search step is a pass forwards and one back, of each network; learning is three passes a point, two back."""
    passes = {"pgd-at": 20 + 3, "trades": 20 + 1 + 6, "rslad": 20 + 1 + 6, "adaad": 40 + 3 + 1}
    for method, count in passes.items():
        assert flops(method, "method.adaad.clean_statistics=false") / FORWARD == pytest.approx(count, rel=0.02)
    assert flops("adaad") / FORWARD == pytest.approx(passes["adaad"] + 1, rel=0.02)


def test_it_grows_with_the_steps_of_the_search_and_with_the_teacher():
    assert flops("pgd-at", "search.steps=5") / FORWARD == pytest.approx(10 + 3, rel=0.02)
    recipe = load_recipe("cifar10", ["method.name=rslad"])
    small, large = (operations(recipe, Blueprint(arch="resnet18", width=width)) for width in (0.25, 1.0))
    assert (large - small) / FORWARD == pytest.approx(1 - 1 / 16, rel=0.02)
    assert sum(parameter.numel() for parameter in built(SMALL).parameters()) < 1_000_000


@pytest.mark.parametrize(("name", "holdout"), [("cifar10-best", 5000), ("cifar10", 1000)])
def test_the_documentation_says_what_is_counted(name, holdout):
    recipe = load_recipe(name)
    assert recipe.data.holdout == holdout
    images = 50_000 - holdout
    each = operations(recipe)
    total = f"{each * images * recipe.train.epochs:.1e}".replace("e+", "e")
    row = f"| `{name}` | {each / 1e9:,.1f} GFLOP | {total} | {hours(recipe, images):.1f} h |"
    page = (ROOT / "docs" / "recipes" / "published.md").read_text()
    assert row in page
    assert f"at {RATE:g} TFLOP/s" in page

"""How much arithmetic a recipe takes, counted from its own step, and how many hours that makes at a rate.

    python -m benchmarks.arithmetic RECIPE... [--rate TFLOP/s]

Nothing is computed: one step of the recipe's method, search and loss with its backward pass, runs on PyTorch's meta
device, where tensors have shapes and no values, and the operations of every convolution and product are added up; a
multiply-add is two. So the figure follows the method, its options and both networks. Hours are that over a rate.

`RATE` is what AdaAD's step of this project reached with ResNet-18 as student and teacher: 1,119 images a second, of
48.9 GFLOP each, on one H200, in TF32, batch 128 (PyTorch 2.11, CUDA 13.0; an earlier version). With the teacher
WRN-34-10 it was 603 images of 305 GFLOP, 184 TFLOP/s: small networks wait for launches.
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipeline.methods import View
from pipeline.methods.search import search
from pipeline.models import Blueprint, build_network
from pipeline.models.layers import Folded, frozen
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.runs.teacher import TEACHERS
from runtime.errors import UsageFault

RATE = 55.0
"""TFLOP/s, see above."""
IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257, "fashion-mnist": 60_000, "fashion-mini": 10_000}
CLASSES, SIDE = 10, 32
BATCH = 2


class Operations(TorchDispatchMode):
    """Adds up the floating-point operations of what runs within it."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it where it is a convolution or a product."""
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def operations(recipe: Recipe, teacher: Blueprint | None = None) -> int:
    """Return the floating-point operations of training on one 32 x 32 x 3 image once, of ten classes.

    Args:
        recipe: names method, search, student and, where `teacher` is None, a teacher that is known.
        teacher: the teacher's network.

    """
    method = recipe.method.resolved()
    with torch.device("meta"):
        student = built(recipe.student).train()
        own = built(recipe.student).eval() if method.averages else None
        teaching = frozen(built(teacher or known_teacher(recipe))) if method.needs_teacher else own
        folded: nn.Module = Folded(student) if method.search_mode == "eval" else student
        images, labels = torch.empty(BATCH, 3, SIDE, SIDE), torch.empty(BATCH, dtype=torch.long)
        with Operations() as counted:
            options = recipe.method.options
            view = View(images, labels, folded, teaching, options, 1.0)
            points: Tensor = search(
                method.objective, view, torch.empty_like(images), recipe.search, clamped=method.clamped
            )
            learning = View(images, labels, student, teaching, options, 1.0, known_teacher=view.known_teacher)
            method.loss(learning, points).sum().backward()
    return counted.total // BATCH


def built(blueprint: Blueprint) -> nn.Module:
    """Return a network of a blueprint, for ten classes of images of three channels."""
    return build_network(blueprint.arch, channels=3, classes=CLASSES, width=blueprint.width, depth=blueprint.depth)


def known_teacher(recipe: Recipe) -> Blueprint:
    """Return the network of a recipe's teacher.

    Raises:
        UsageFault: its file alone says what it is.

    """
    known = TEACHERS.get(recipe.teacher.name or "") if recipe.teacher else None
    if known is None or known.foreign is None:
        raise UsageFault(f"{recipe.name}: the network of its teacher is not known by name")
    return known.foreign


def hours(recipe: Recipe, images: int, *, rate: float = RATE, teacher: Blueprint | None = None) -> float:
    """Return the hours that a recipe's epochs take on so many training images, at a rate in TFLOP/s."""
    return operations(recipe, teacher) * images * recipe.train.epochs / (rate * 1e12) / 3600


def main() -> None:
    """Print operations and hours of some recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--rate", type=float, default=RATE)
    given = parser.parse_args()
    for name in given.recipes:
        recipe = load_recipe(name)
        images = IMAGES[recipe.data.name or ""] - recipe.data.holdout
        each = operations(recipe)
        print(
            f"{recipe.name}: {each / 1e9:.1f} GFLOP an image, {each * images * recipe.train.epochs:.1e} FLOP in all, "
            f"{hours(recipe, images, rate=given.rate):.1f} h at {given.rate:g} TFLOP/s"
        )


if __name__ == "__main__":
    main()

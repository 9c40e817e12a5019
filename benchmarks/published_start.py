"""What the start of the search changes: points found from a start in [0, 1], and from one that may lie outside of it.

    python -m benchmarks.published_start [IMAGES]

On the first test images of fashion-mini, whose ground is black. The teacher is the shipped one; the student is the
teacher with 5 % of noise on every weight, as one that has come close to it. Ten steps of 2/255, noise of seed 0. For
each method whose published code starts elsewhere: the share of pixels of x' that differ, the mean of its objective,
which the search raises, at the points of a clamped start, and how much higher it is at the others, with the standard
error over images.
"""

import sys

import torch

from pipeline.data.sets import load_dataset
from pipeline.methods import METHODS, View
from pipeline.methods.search import STARTS, SearchSpec, search
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.runs.distill import network_card
from pipeline.runs.teacher import load_teacher

IMAGES, NOISE = 256, 0.05


def main() -> None:
    """Print a line for each method."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    torch.manual_seed(0)
    recipe, dataset = load_recipe("fashion-mini"), load_dataset("fashion-mini", None)
    assert recipe.teacher is not None
    network, _, _ = load_teacher(recipe.teacher, network_card(recipe, dataset))
    teacher = frozen(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1 + NOISE * torch.randn_like(weight))
    student = frozen(network)
    images = torch.from_numpy(dataset.test.as_float(slice(0, count)))
    labels = torch.from_numpy(dataset.test.labels[:count])
    for name, method in METHODS.items():
        if method.published is None or method.published.clamped:
            continue
        noise = STARTS[method.start](images, recipe.search.eps, torch.Generator().manual_seed(0))
        view = View(images, labels, student, teacher, method.options(), 1.0)
        points = [search(method.objective, view, noise, SearchSpec(), clamped=clamped) for clamped in (True, False)]
        with torch.no_grad():
            clamped, published = (method.objective(view, found) for found in points)
        higher = published - clamped
        print(
            f"{name}: {(points[0] != points[1]).float().mean():.1%} of pixels differ; objective {clamped.mean():.5f}, "
            f"higher by {higher.mean():+.5f} +- {higher.std() / count**0.5:.5f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

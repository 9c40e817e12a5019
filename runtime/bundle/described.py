"""Facts about a bundle's model for a report, all from the manifest and the graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.graph.weights import count_weights
from runtime.records.report import Model
from runtime.spec import PARENT

if TYPE_CHECKING:
    from runtime.bundle.manifest import Provenance
    from runtime.bundle.opening import Bundle


USUAL_WIDTH = 1.0
"""The width at which it is not mentioned."""


def describe(bundle: Bundle) -> Model:
    """Return the facts about a bundle's model.

    Raises:
        BadModel: the fp32 graph, or else the one that ships, is not an ONNX graph.

    """
    manifest = bundle.manifest
    widest = manifest.graphs.get(PARENT) or manifest.graphs[manifest.ships]
    image = manifest.input
    return Model(
        **_training(manifest.provenance),
        weights=count_weights(bundle.read(widest.forward)) or None,
        sizes={name: manifest.files[graph.forward].size for name, graph in sorted(manifest.graphs.items())},
        ships=manifest.ships,
        image=(image.channels, image.height, image.width),
    )


def network_of(origin: Provenance | None) -> str | None:
    """Return the network of a bundle's model, as every report names it; None if its recipe names none."""
    return network_words(_table(origin.recipe, "student")) if origin else None


def network_words(table: dict[str, Any]) -> str | None:
    """Return the network that a recipe's table names, with its depth and width; None if it names none."""
    name = table.get("arch") or table.get("factory")
    given = {key: table[key] for key in ("depth", "width") if table.get(key) not in (None, USUAL_WIDTH)}
    scales = [
        f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}" for key, value in given.items()
    ]
    return ", ".join([str(name), *scales]) if name else None


def _training(origin: Provenance | None) -> dict[str, str | None]:
    """Return how the model was trained. The teacher is left out if it was not used, although a recipe may name one."""
    if origin is None:
        return {}
    method, teacher = (_table(origin.recipe, name) for name in ("method", "teacher"))
    found = {"architecture": network_of(origin), "method": method.get("name")}
    if origin.teacher_sha256:
        found["teacher"] = teacher.get("name") or teacher.get("path")
        found["teacher_architecture"] = origin.teacher_architecture or network_words(teacher)
    return {key: str(value) for key, value in found.items() if value}


def _table(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    table = recipe.get(name)
    return table if isinstance(table, dict) else {}

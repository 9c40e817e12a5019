"""The JSON schema of a recipe's file, with which editors complete keys and mark unknown ones.

It is made from the records that read the file. It allows everything that may be written there: "8/255" as a string, the
table of every method, `base` and `for`. It does not check rules that involve several keys; the reader does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipeline.methods import METHODS
from pipeline.recipe.file import BASE, FOR
from pipeline.recipe.schema import Recipe
from pipeline.recipe.tables import usual_decay
from runtime.images.preprocessing import read_size
from runtime.spec import parse_fraction

DIALECT = "https://json-schema.org/draft/2020-12/schema"
WRITTEN: dict[Callable[..., Any], list[JsonSchemaValue]] = {
    parse_fraction: [{"type": "string", "pattern": r"^[0-9.]+(e-?[0-9]+)?(%|/[0-9.]+)?$"}],
    read_size: [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]+(x[0-9]+)?(:[0-9]+(x[0-9]+)?)?$"}],
    usual_decay: [{"type": "boolean"}],
}
"""Further forms in which a value may be written, by the function that reads it."""
BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""Names of bounds in JSON schema. If a value may also be a string, pydantic keeps its own names for them."""


class _AsWritten(GenerateJsonSchema):
    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        read = super().function_before_schema(schema)
        written = WRITTEN.get(schema["function"]["function"])
        return {"anyOf": [read, *written]} if written else read


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe's file as a dictionary."""
    whole = Recipe.model_json_schema(schema_generator=_AsWritten)
    tables: dict[str, Any] = whole["$defs"]
    branches = [tables.pop(branch["$ref"].rpartition("/")[2]) for branch in whole["properties"]["method"]["oneOf"]]
    tables["MethodTable"] = _one_table(branches)
    properties = whole["properties"] | {"method": {"$ref": "#/$defs/MethodTable"}}
    closed: dict[str, Any] = {"type": "object", "additionalProperties": False}
    tables["Part"] = {**closed, "description": "What holds for one method alone.", "properties": properties}
    for table in tables.values():
        table.pop("required", None)  # a base may set it
    of_methods = {**closed, "properties": {name: {"$ref": "#/$defs/Part"} for name in METHODS}}
    base = {"type": "string", "description": "The name of a recipe, or a path that ends in .toml, to build on."}
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "title": "A recipe of edgeproof",
        **closed,
        "properties": {**properties, BASE: base, FOR: of_methods},
        "anyOf": [{"required": [BASE]}, {"required": [*whole["required"]]}],
        "$defs": tables,
    }
    return _told(schema)  # type: ignore[no-any-return]


def _one_table(branches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return [method] as one table, which may also hold the tables of other methods."""
    properties = {key: kind for branch in branches for key, kind in branch["properties"].items()}
    return branches[0] | {"title": "MethodTable", "properties": properties | {"name": {"enum": list(METHODS)}}}


def _told(node: Any) -> Any:
    """Return a schema without null, which TOML lacks, and with the names that JSON schema has for bounds."""
    if isinstance(node, list):
        return [_told(each) for each in node if each != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    plain = {BOUNDS.get(key, key): _told(each) for key, each in node.items() if each is not None}
    kinds = plain.get("anyOf", [])
    return {**plain.pop("anyOf")[0], **plain} if len(kinds) == 1 else plain

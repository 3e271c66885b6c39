"""The JSON Schema of pipeline files, with which editors complete and check them."""

from __future__ import annotations

from typing import Any

from tfprune.pipeline.kinds import TRAINING
from tfprune.pipeline.spec import Pipeline


def json_schema() -> dict[str, Any]:
    """What a pipeline file may hold, as JSON Schema (draft 2020-12).

    It is looser than `load_pipeline` where one table speaks of another: names of steps in chains,
    and keys that `[training]` provides for all steps.
    """
    schema = Pipeline.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for name, table in definitions.items():
        if name.removesuffix("Step").lower() in TRAINING:
            # `[training]` may say it for all.
            table["required"] = [key for key in table["required"] if key != "epochs"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of tfprune",
        **{key: _without_null(value) for key, value in schema.items() if key != "title"},
    }


def _without_null(node: Any) -> Any:
    """A schema without null, which TOML does not have: what is not said is left out."""
    if isinstance(node, list):
        return [_without_null(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {
        key: _without_null(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
    }
    some = [each for each in node.get("anyOf", []) if each != {"type": "null"}]
    if len(some) == 1:
        del node["anyOf"]
        return {**some[0], **node}
    return {**node, "anyOf": some} if some else node

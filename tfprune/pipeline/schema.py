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
    for table in definitions["SharedTraining"]["properties"].values():
        # TOML has no null: what is not said is left out.
        table.pop("default", None)
        said = [each for each in table.pop("anyOf", []) if each != {"type": "null"}]
        if len(said) == 1:
            table.update(said[0])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of tfprune",
        **{key: value for key, value in schema.items() if key != "title"},
    }

"""The `[task]` table: what a model is trained for. Free of Keras, so that checks are fast."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from tfprune.figures import Direction

Kind = Literal["classification", "binary", "multi-label", "segmentation", "regression"]
# A Keras identifier, `FILE.py:NAME`, or Keras' table {class_name, config}.
Identifier = str | dict[str, Any]


class TaskSpec(pydantic.BaseModel):
    """What a model is trained for, as a person writes it: the `[task]` table.

    Example:
        ```python
        TaskSpec(kind="regression", figure="mae", unit="mm")
        ```
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind | None = None
    loss: Identifier | list[Identifier] | dict[str, Any] | None = None
    metrics: list[Any] | dict[str, Any] | None = None
    loss_weights: list[float] | dict[str, float] | None = None
    figure: str | None = None
    better: Direction | None = None
    unit: str | None = None
    from_logits: bool | None = None
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    top: int | None = pydantic.Field(None, ge=2)
    ignore_class: int | None = None

    @classmethod
    def read(cls, text: str) -> TaskSpec:
        """The task of a command line: a kind, or the path of a TOML file with its keys.

        Example:
            ```python
            TaskSpec.read("segmentation").kind  # "segmentation"
            ```
        """
        return cls.model_validate({"kind": text})

"""Pipelines: variants as chains of steps, run from a TOML file, each step done once.

What runs them is not imported here, so that a mistake in a pipeline file is told without waiting
for TensorFlow.
"""

from tfprune.pipeline.new import new_pipeline
from tfprune.pipeline.schema import json_schema
from tfprune.pipeline.spec import Pipeline, load_pipeline

__all__ = ["Pipeline", "json_schema", "load_pipeline", "new_pipeline"]

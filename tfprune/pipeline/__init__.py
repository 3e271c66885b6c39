"""Pipelines: variants as chains of steps, run from a TOML file, each step done once.

The runner is not imported here, so that a mistake in a pipeline file is told without waiting for
TensorFlow.
"""

from tfprune.pipeline.spec import Pipeline, load_pipeline

__all__ = ["Pipeline", "load_pipeline"]

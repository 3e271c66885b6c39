"""Weights of few values, while a model trains: clustering."""

from __future__ import annotations

from tfprune.quantize.clustering import KeepClusters, cluster

__all__ = ["KeepClusters", "cluster"]

"""What is true of slimming any model is true of random ones.

`make test` tries the same 12 graphs each time, `make fuzz` 1,000 others.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, note, settings

from tests.versions import newer_keras

from .harness import run_slim_test
from .strategies import Graph, built, described, graphs

EXAMPLES = int(os.environ.get("TFPRUNE_FUZZ_EXAMPLES", "0"))


@pytest.mark.filterwarnings("ignore:.*softmax over axis -1:UserWarning")
@settings(
    max_examples=EXAMPLES or 12,
    derandomize=not EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(graphs())
@newer_keras("a model reads all its inputs")
def test_any_graph(graph: Graph) -> None:
    model = built(graph)
    note("\n".join(described(model)))
    run_slim_test(model, removable=None, exact=graph.exact, dies=None, tolerance=1e-4)

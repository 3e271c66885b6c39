"""What a pipeline file may say, and the exact answer to what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.pipeline import load_pipeline

SHIPPED = sorted((Path(__file__).parents[2] / "pipelines").glob("*.toml"))
GOOD = """
name = "tiny"

[data]
name = "digits"

[model]
name = "vgg"

[training]
batch_size = 64

[steps.dense]
kind = "train"
epochs = 3

[steps.sparse]
kind = "prune"
sparsity = 0.8
epochs = 2
batch_size = 32

[steps.slim]
kind = "slim"
macs = 0.5

[variants]
dense = ["dense"]
sparse = ["dense", "sparse"]
"""


def _load(text: str, folder: Path) -> None:
    path = folder / "p.toml"
    path.write_text(text)
    load_pipeline(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_pipelines_are_valid_and_named_after_their_file(path):
    assert load_pipeline(path).name == path.stem


def test_steps_inherit_what_training_says_and_override_it(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(GOOD)
    steps = load_pipeline(path).steps
    assert steps["dense"].batch_size == 64
    assert steps["sparse"].batch_size == 32


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "sparsity = 0.8",
            "sparsity = 1.8",
            "steps.sparse.sparsity = 1.8: Input should be less than 1",
        ),
        (
            "sparsity = 0.8",
            "sparsty = 0.8",
            "steps.sparse.sparsty is unknown: did you mean 'sparsity'? (and 1 more)",
        ),
        (
            'kind = "prune"',
            'kind = "prun"',
            "steps.sparse.kind = 'prun' is unknown: did you mean 'prune'?",
        ),
        (
            'kind = "slim"\n',
            "",
            "steps.slim.kind is missing: choose one of train, prune, prune-once, learn, slim, "
            "retrain, quantize, export",
        ),
        (
            '"dense", "sparse"]',
            '"dense", "sparce"]',
            "variants.sparse names the step 'sparce', which [steps] does not have: "
            "did you mean 'sparse'?",
        ),
        (
            'dense = ["dense"]',
            'dense = ["slim"]',
            "variants.dense must begin with a step that trains: a new model has nothing to remove",
        ),
        ("[data]", "[date]", "date is unknown: did you mean 'data'? (and 1 more)"),
        ("batch_size = 64", "batchsize = 64", "training.batchsize is unknown: did you mean"),
        (
            "macs = 0.5",
            "macs = 0.5\nparams = 0.5",
            "steps.slim: give exactly one of filters, macs, params and dead",
        ),
        ("macs = 0.5", "macs = 0", "steps.slim.macs = 0: Input should be greater than 0"),
        ("epochs = 3", "epochs = 0", "steps.dense.epochs = 0: Input should be greater than or"),
        ('name = "tiny"', "", "name is missing: add it"),
        ("[data]", "[data", "is not valid TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        _load(GOOD.replace(old, new, 1), tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "p.toml"))
    assert said in message
    assert "\n" not in message


def test_begin_after_end_is_refused(tmp_path):
    text = GOOD.replace("sparsity = 0.8", "sparsity = 0.8\nbegin = 0.9")
    with pytest.raises(UsageError, match=r"steps\.sparse: begin=0\.9 comes after end=0\.5"):
        _load(text, tmp_path)


def test_a_missing_file_is_a_failure_not_a_usage_error(tmp_path):
    with pytest.raises(TfpruneError, match="cannot be read") as caught:
        load_pipeline(tmp_path / "none.toml")
    assert caught.value.exit_code == 1

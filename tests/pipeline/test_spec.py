"""What a pipeline file may say, and the exact answer to what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.filters import IMPORTANCE_NAMES
from tfprune.pipeline import load_pipeline
from tfprune.pipeline.kinds import Importance

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
            "steps.slim.kind is missing: choose one of train, prune, prune-once, round, learn, "
            "slim, retrain, quantize, export",
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
            "steps.slim: give exactly one of filters, macs, params, latency, milliseconds, bytes "
            "and dead",
        ),
        (
            "macs = 0.5",
            "latency = 0.5\nrounds = 2",
            "steps.slim: rounds has no meaning for the target latency: leave it out",
        ),
        (
            "macs = 0.5",
            "macs = 0.5\nthreads = 2",
            "steps.slim: threads has no meaning for the target macs: leave it out",
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


CHAINS = GOOD.replace(
    "[variants]",
    """
[steps.cut]
kind = "prune-once"
share = 0.2

[steps.weights]
kind = "retrain"
rewind = "weights"
epochs = 3

[steps.int8]
kind = "quantize"

[variants]""",
)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'sparse = ["dense", "sparse"]',
            'sparse = ["dense", "int8", "sparse"]',
            "variants.sparse goes on after quantize, which must be last: "
            "it only says what to export",
        ),
        (
            'sparse = ["dense", "sparse"]',
            'sparse = ["dense", "slim", "weights"]',
            "variants.sparse rewinds weights after a slim step, whose shapes are others: "
            'use rewind = "lr"',
        ),
        *(
            (
                'sparse = ["dense", "sparse"]',
                f'"{name}" = ["dense", "sparse"]',
                f"variants.{name} has the name of something else in the run's folder: "
                "choose another name",
            )
            for name in ("latency", "steps", "run.json")
        ),
        (
            'rewind = "weights"',
            'rewind = "weights"\nepoch = 1',
            "variants.ticket rewinds to epoch 1, which its first step does not keep: "
            "give that step keep = [1]",
        ),
        (
            'rewind = "weights"',
            'rewind = "lr"\nepoch = 3',
            "steps.weights: epoch=3 leaves nothing of 3 epochs to train",
        ),
        (
            'rewind = "weights"',
            'rewind = "finetune"\nepoch = 1',
            'steps.weights: epoch=1 has no meaning with rewind = "finetune"',
        ),
        (
            "epochs = 3",
            "epochs = 3\nkeep = [4]",
            "steps.dense: keep=[4] goes beyond the last epoch, 3",
        ),
        (
            "share = 0.2",
            'share = 0.2\nscope = "global"\nlayers = { logits = 0.1 }',
            'steps.cut: layers have shares of their own only under scope = "layer"',
        ),
        (
            "share = 0.2",
            'share = 0.2\n[steps.learn]\nkind = "learn"\nepochs = 1',
            "steps.learn: give a strength, or one of filters, macs and params",
        ),
        (
            "share = 0.2",
            'share = 0.2\n[steps.learn]\nkind = "learn"\nepochs = 1\nmacs = 0.5\nparams = 0.5',
            "steps.learn: give one target, not macs and params",
        ),
        (
            "share = 0.2",
            'share = 0.2\n[steps.learn]\nkind = "learn"\nepochs = 1\nmacs = 0.5\nbegin = 0.5',
            "steps.learn: begin=0.5 does not come before end=0.5",
        ),
        (
            'rewind = "weights"',
            'rewind = "weights"\nteacher = "dens"',
            "variants.ticket is taught by 'dens', which is no step before 'weights': "
            "did you mean 'dense'?",
        ),
        (
            'sparse = ["dense", "sparse"]',
            'sparse = ["cut"]',
            "variants.sparse must begin with a step that trains: a new model has nothing to remove",
        ),
        (
            'name = "vgg"',
            'name = "net.keras"',
            'variants.ticket rewinds a .keras file, whose start is not known: use rewind = "lr"',
        ),
        (
            'name = "vgg"',
            'name = "net.keras"\noptions = { width = 4 }',
            "model: a .keras file is what it is: leave options out",
        ),
        (
            "[variants]",
            "[sweep.sprase]\nsparsity = [0.5]\n[variants]",
            "sweep.sprase names a step that [steps] does not have: did you mean 'sparse'?",
        ),
        (
            "[variants]",
            "[sweep.sparse]\nsparsity = [0.5, 1.5]\n[variants]",
            "steps.sparse-sparsity-1.5.sparsity = 1.5: Input should be less than 1",
        ),
        (
            "[variants]",
            '[rounds.ticket]\nrepeat = ["cut"]\n[variants]',
            "rounds.ticket.times is missing: add it",
        ),
        (
            "[variants]",
            '[rounds.deep]\nstart = ["dense"]\nrepeat = ["cutt"]\ntimes = 1\n[variants]',
            "variants.deep-1 names the step 'cutt', which [steps] does not have: "
            "did you mean 'cut'?",
        ),
        (
            "[variants]",
            "[[budget.rules]]\naccuracy = { mim = 0.5 }\n[variants]",
            "budget.rules#1.accuracy.mim is unknown: did you mean 'min'?",
        ),
    ],
)
def test_a_chain_that_cannot_be_is_one_line(tmp_path, old, new, said):
    text = CHAINS + 'ticket = ["dense", "cut", "weights"]\n'
    assert old in text
    with pytest.raises(UsageError) as caught:
        _load(text.replace(old, new, 1), tmp_path)
    message = str(caught.value).removeprefix(f"{tmp_path / 'p.toml'}: ")
    assert message.partition(" (and ")[0] == said


def test_pretrained_models_and_files_may_be_pruned_at_once(tmp_path):
    text = GOOD.replace('dense = ["dense"]', 'dense = []\nslim = ["slim"]')
    for name in ("net.keras", "MobileNetV2"):
        _load(text.replace('"vgg"', f'"{name}"'), tmp_path)
    random = '"MobileNetV2"\noptions = { weights = "random" }'
    with pytest.raises(UsageError, match=r"variants\.dense must begin with a step that trains"):
        _load(text.replace('"vgg"', random), tmp_path)


def test_importances_are_those_of_the_library():
    """The tables are checked without Keras, so they repeat the names."""
    assert get_args(Importance) == IMPORTANCE_NAMES

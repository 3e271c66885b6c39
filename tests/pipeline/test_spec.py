"""What a pipeline file may say, and the exact answer to what it may not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.pipeline import load_pipeline
from tfprune.pipeline.inputs import check_budget
from tfprune.pipeline.spec import checked_seeds

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


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
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
            "steps.slim.kind is missing: choose one of train, retrain, prune, prune-once, "
            "quantize-weights, cluster, rewrite, learn, slim, quantize-aware, equalize, "
            "correct-biases, quantize, export",
        ),
        (
            'kind = "slim"\n',
            'kind = "round"\n',
            "steps.slim.kind = 'round' is called 'quantize-weights' now: write that",
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
            "steps.slim: give exactly one of filters, macs, params, latency, milliseconds, bytes, "
            "cycles, sram, flash and dead",
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
        *(
            ('name = "vgg"', f'name = "vgg"\noptions = {{ {option} }}', f"model: {said}")
            for option, said in (
                ("width = 0", "width is 0 and must be a whole number of 1 or more"),
                ('width = "a"', "width is 'a' and must be a whole number of 1 or more"),
                ("width = 4.0", "width is 4.0 and must be a whole number of 1 or more"),
                ("width = true", "width is True and must be a whole number of 1 or more"),
                ("width = 5000", "width is beyond 1,024, the most there is"),
                ("blocks = 3", "blocks is 3 and must be a list of whole numbers, such as [2, 2]"),
                ("blocks = []", "the number of blocks is 0 and must be a whole number of 1"),
                ("blocks = [0]", "a number in blocks is 0 and must be a whole number of 1 or"),
                ("depth = 20", "unknown option 'depth' of vgg: "),
            )
        ),
        *(
            ('name = "vgg"', f'name = "MobileNetV2"\noptions = {{ {option} }}', f"model: {said}")
            for option, said in (
                ("dropout = 1", "dropout is 1 and must be a number from 0 to below 1"),
                ("dropout = nan", "dropout is nan and must be a number from 0 to below 1"),
                ("alpha = 0", "alpha is 0 and must be a number above 0"),
                ("weights = 3", "weights of MobileNetV2 are '3', which is not a file"),
            )
        ),
        *(
            ('name = "tiny"', f'name = "tiny"\nseeds = {seeds}', said)
            for seeds, said in (
                ("[4294967296]", "seeds#1 = 4294967296: Input should be less than or equal to"),
                ("[-1]", "seeds#1 = -1: Input should be greater than or equal to 0"),
                ("[0, 1, 0]", "seeds: 0 comes twice"),
                ("[]", "seeds = []: "),
                (str(list(range(60_000))), "variants times seeds are 120,000, and at most"),
            )
        ),
        ('name = "tiny"', 'name = "tiny"\nformats = ["keras", "keras"]', "formats: keras comes"),
        *(
            ('name = "tiny"', f'name = "{name}"', "name = ")
            for name in ("", ".", "..", "a/b", "a\\u0000b", "a\\nb", "模型", "a" * 129, " a")
        ),
        ("dense = [", f'"{"a" * 300}" = [', f"variants.{'a' * 57}... = "),
        ("epochs = 3", f"epochs = {10**18}", "steps.dense.epochs is a number beyond 1,000,000,000"),
        ("batch_size = 64", "batch_size = 0", "training.batch_size = 0: Input should be greater"),
        ("batch_size = 64", f"batch_size = {10**12}", "training.batch_size is a number beyond"),
        ("batch_size = 64", "learning_rate = nan", "training.learning_rate = nan: Input should be"),
        ("batch_size = 64", "learning_rate = -0.1", "training.learning_rate = -0.1: Input should"),
        ("macs = 0.5", "dead = true\ntolerance = inf", "steps.slim.tolerance"),
        ("macs = 0.5", "macs = nan", "steps.slim.macs = nan: "),
        ('name = "digits"', 'name = "digits"\nimage_size = [0, 8]', "data.image_size#1 = 0: Input"),
        ('name = "digits"', 'name = "digits"\nimage_size = [8, 99999]', "data.image_size#2 = 9"),
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


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
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
            "steps.learn: give a strength, or one of filters, macs, params; with a device also "
            "latency, milliseconds, cycles, sram, flash",
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
            "variants.ticket is taught by 'dens', which is not a step before 'weights': "
            "did you mean 'dense'?",
        ),
        (
            'rewind = "weights"',
            'rewind = "weights"\nteacher = "weights"',
            "variants.ticket is taught by 'weights', which is not a step before 'weights': "
            "its chain has none",
        ),
        # What is wrong from the second round on.
        (
            "[variants]",
            '[rounds.deep]\nstart = ["dense"]\nrepeat = ["cut", "int8"]\ntimes = 9\n[variants]',
            "variants.deep-2 goes on after quantize, which must be last: "
            "it only says what to export",
        ),
        (
            "[variants]",
            '[rounds.deep]\nstart = ["dense"]\nrepeat = ["weights", "slim"]\ntimes = 9\n[variants]',
            "variants.deep-2 rewinds weights after a slim step, whose shapes are others: "
            'use rewind = "lr"',
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
            "model: net.keras is a file, which has no option width: leave it out, or give "
            "FILE.py:FUNCTION or a net of the zoo",
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


WITHIN = """
[[budget.rules]]
{rule}
accuracy = {{ min = 0.5 }}
"""


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            'variant = "sprase"',
            "budget: rule #1: no variant of the run is called 'sprase': did you mean 'sparse'?",
        ),
        ('variant = "x*"', "budget: rule #1: no variant of the run is called 'x*': choose one of"),
        (
            'variant = "dense"\nartifact = "tflite-int4"',
            "budget: rule #1: dense has no artifact 'tflite-int4': did you mean 'tflite-int",
        ),
        (
            'variant = "phone"\nartifact = "keras"',
            "budget: rule #1: phone has no artifact 'keras': choose one of onnx",
        ),
        (
            'variant = "sparse"\nagainst = "dnse"\nmacs = { max_ratio = 1 }',
            "budget: rule #1: against = 'dnse' is not a variant of the run: did you mean 'dense'?",
        ),
        (
            'variant = "d*"\nagainst = "dense"\nmacs = { max_ratio = 1 }',
            "budget: rule #1: 'd*' matches only 'dense', which it is compared with",
        ),
        (
            'variant = "phone"\nagainst = "dense"\nmacs = { max_ratio = 1 }',
            "budget: rule #1: dense has no onnx to compare with: export it there too",
        ),
    ],
)
def test_a_budget_that_fits_nothing_of_the_pipeline(tmp_path, rule, said):
    more = """[steps.phone]
kind = "export"
formats = ["onnx"]
[variants]
phone = ["dense", "phone"]"""
    text = GOOD.replace("[variants]", more)

    def checked(rule: str) -> None:
        path = tmp_path / "p.toml"
        path.write_text(text + WITHIN.format(rule=rule))
        check_budget(load_pipeline(path))

    checked('variant = "phone"\nartifact = "onnx"')
    # An artifact that some of the variants are delivered as is one that a rule may name.
    checked('artifact = "onnx"')
    with pytest.raises(UsageError) as caught:
        checked(rule)
    assert str(caught.value).removeprefix(f"{tmp_path / 'p.toml'}: ").startswith(said)


def test_a_try_with_other_formats_than_the_budgets_is_no_mistake(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(GOOD + WITHIN.format(rule='artifact = "tflite"'))
    pipeline = load_pipeline(path, ['formats=["keras"]'])
    with pytest.raises(UsageError, match=r"budget: rule #1: dense has no artifact 'tflite'"):
        check_budget(pipeline)


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[variants]", "[sweep.slim]\nmacs = [0.5]\n[variants]", "sweep.slim is of a step that no"),
        (
            "[variants]",
            "[sweep.sparse]\nsparsity = []\n[variants]",
            "sweep.sparse.sparsity is empty",
        ),
        (
            "[variants]",
            "[sweep.sparse]\nsparsity = [0.5, 0.5]\n[variants]",
            "sweep.sparse makes sparse-sparsity-0.5 twice",
        ),
        (
            "[variants]",
            f"[sweep.sparse]\nsparsity = {[n / 2e4 for n in range(10_001)]}\n[variants]",
            "rounds and sweep make more than 10,000 variants",
        ),
        (
            "[variants]",
            "[sweep.sparse]\n"
            + "".join(f"k{place} = {[*range(9)]}\n" for place in range(99))
            + "[variants]",
            "rounds and sweep make more than 10,000 variants",
        ),
        (
            "[variants]",
            '[rounds.a]\nrepeat = ["dense"]\ntimes = 1000000\n[variants]',
            "rounds.a.times must be at most 10,000",
        ),
        (
            "[variants]",
            '[rounds.a]\nrepeat = ["dense"]\ntimes = 2\n[variants]\na-2 = ["dense"]',
            "rounds.a makes a second variant a-2",
        ),
    ],
)
def test_an_expansion_that_cannot_be_is_refused_before_it_is_made(tmp_path, old, new, said):
    begun = time.perf_counter()
    with pytest.raises(UsageError) as caught:
        _load(GOOD.replace(old, new, 1), tmp_path)
    assert f"p.toml: {said}" in str(caught.value)
    assert time.perf_counter() - begun < 5


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@pytest.mark.parametrize("seeds", [[-1], [2**32], [1, 1]])
def test_seeds_that_are_asked_for_are_checked_like_the_pipelines(seeds):
    with pytest.raises(UsageError, match=r"seed"):
        checked_seeds(seeds)
    assert checked_seeds([3, 2**32 - 1]) == [3, 2**32 - 1]


@pytest.mark.parametrize(
    ("written", "read"), [("", 1), ("batch = 4", 4), ('batch = "dynamic"', "dynamic")]
)
def test_tflite_files_have_the_batch_that_is_written(written, read, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(f"{written}\n{GOOD}")
    assert load_pipeline(path).batch == read


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("batch = 0", "batch"),
        ('batch = "any"', "batch"),
        ('batch = 4\nformats = ["keras"]', "batch is 4, and keras take any number of examples"),
    ],
)
def test_a_batch_that_cannot_be_is_one_line(written, says, tmp_path):
    with pytest.raises(UsageError) as error:
        _load(f"{written}\n{GOOD}", tmp_path)
    assert "\n" not in str(error.value)
    assert says in str(error.value)

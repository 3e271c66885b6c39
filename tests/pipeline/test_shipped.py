"""Every pipeline that ships runs as it is: here on few images, one epoch and the smallest net."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.tables import slow
from tfprune.files import write_text
from tfprune.pipeline import load_pipeline
from tfprune.pipeline.runner import run
from tfprune.report import comparison, read_run

SHIPPED = sorted((Path(__file__).parents[2] / "pipelines").glob("*.toml"))
DEMO = SHIPPED[0].with_name("digits.toml")
# What has data of its own is in test_examples_shipped.
NAMED = [path for path in SHIPPED if ".py:" not in load_pipeline(path).data.name]
SMALL_NETS = {
    "vgg": ["model.options={ width = 4, blocks = [1, 1] }"],
    "conv2": ["model.options.width=2"],
    "resnet20": ["model.options.width=4"],
    "mobilenetv1": ["model.options.width=4", "data.image_size=[32, 32]"],
    "MobileNetV2": [
        "model.options={ alpha = 0.35, weights = 'random', dropout = 0.2 }",
        "data.image_size=[32, 32]",
    ],
}

# Of a model at an address, which is not asked for.
INSTEAD = ["model={ name = 'conv2', options = { width = 2 } }"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_pipelines_are_valid_and_named_after_their_file(path):
    assert load_pipeline(path).name == path.stem


# Their nets are deep or their variants many: a quarter of a minute or more each, which `make slow`
# takes.
LONG = (
    "cifar10_study",
    "digits_study",
    "cifar10",
    "cifar10_wasm",
    "cifar10_stack",
    "lottery_conv2",
    "rewinding_conv2",
    "filters_resnet20",
    "filters_vgg",
    "findings",
    "mlperf_tiny_ic",
    "mobilenetv2_transfer",
    "rewinding_resnet20",
    "ssl_resnet20",
)


@pytest.mark.slow
# So few images make a step, and its ramp a cut, which is said.
@pytest.mark.filterwarnings(
    "ignore:PruneWeights. the (schedule begins and ends|frequency of):UserWarning"
)
@pytest.mark.filterwarnings("ignore:.*has classes that the train split lacks:UserWarning")
@pytest.mark.parametrize(
    "path",
    [slow(path) if path.stem in LONG else path for path in NAMED],
    ids=lambda path: path.stem,
)
def test_shipped_pipelines_run(path, tmp_path):
    raw = tomllib.loads(path.read_text())
    settings = [
        "data={ name = 'digits', limit = 40, validation = 0.2 }",
        *SMALL_NETS.get(raw["model"]["name"], INSTEAD),
        "formats=['keras']",
        "seeds=[0]",
        *(f"{name}.epochs=1" for name, step in raw["steps"].items() if "epochs" in step),
        *(["training.epochs=1"] if "epochs" in raw["training"] else []),
        *(
            f"{name}.warmup_epochs=0"
            for name, step in raw["steps"].items()
            if "warmup_epochs" in step
        ),
        "training.warmup_epochs=0",
        *(f"rounds.{name}.times=1" for name in raw.get("rounds", {})),
        # One of many values: the last is the deepest cut.
        *(
            f"sweep.{step}.{key}={values[-1:]!r}"
            for step, swept in raw.get("sweep", {}).items()
            for key, values in swept.items()
        ),
    ]
    if "latency" in raw["steps"]:
        # So small a net has no time to save that could be measured.
        settings += ["steps.latency={ kind = 'slim', macs = 0.5 }"]
    if "cycles" in raw["steps"].get("slim", {}):
        settings += ["steps.slim={ kind = 'slim', macs = 0.5 }"]
    if "policy" in raw["steps"].get("sparse", {}):
        # The digits have one channel, and XNNPACK asks for three.
        settings += ["steps.sparse={ kind = 'prune', sparsity = 0.8, epochs = 1 }"]
    if raw["steps"].get("files", {}).get("kind") == "export":
        settings += ["steps.files.formats=['keras']"]
    # cpu and what else is not optional runs other files than these.
    settings += ["devices=[]"]
    # Rewinding to epoch 1 wants a second one.
    for name, step in raw["steps"].items():
        if step.get("epoch"):
            settings += ["training.epochs=2", "dense.keep=[1]", f"{name}.epoch=1"]
    pipeline = load_pipeline(path, settings)
    table = comparison(read_run(run(pipeline, out=tmp_path)))
    assert set(table.variant) == set(pipeline.variants)
    dense = table[table.variant == next(iter(pipeline.variants))]
    for variant in pipeline.variants:
        rows = table[table.variant == variant]
        made_smaller = any(
            pipeline.steps[step].kind in ("slim", "prune", "prune-once")
            and not getattr(pipeline.steps[step], "dead", False)
            for step in pipeline.variants[variant]
        )
        assert (rows.nonzero.min() < dense.nonzero.min()) == made_smaller or "int8" in variant


def test_the_shipped_budget_judges_every_variant_of_the_demo():
    pipeline = load_pipeline(DEMO)
    assert pipeline.budget is not None
    said = {rule.variant for rule in pipeline.budget.rules}
    assert said == {"*", "weights-80", "filters-lasso", "both"}


def test_a_setting_that_is_wrong_is_told_like_a_mistake_in_the_file(tmp_path):
    from tfprune.errors import UsageError

    file = write_text(tmp_path / "digits.toml", DEMO.read_text())
    with pytest.raises(UsageError) as caught:
        load_pipeline(file, ["sparse-80.sparsity=2"])
    assert str(caught.value) == (
        f"{file}: steps.sparse-80.sparsity = 2: Input should be less than 1"
    )

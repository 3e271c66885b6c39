"""Zeros stay, the schedule arrives, and nothing remains."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, optimizers

from tests.tables import slow
from tfprune.errors import UsageError
from tfprune.training.schedule import constant_sparsity, polynomial_decay
from tfprune.weights import MaskConstraint, PruneWeights

SCHEDULE = polynomial_decay(0.25, 0.75, begin=2, end=13, frequency=3)


class ZerosStay(keras.callbacks.Callback):
    """Compares the weights with the masks after every batch and epoch."""

    def __init__(self, pruner: PruneWeights) -> None:
        super().__init__()
        self.pruner = pruner
        self.seen: list[float] = []
        self.before: dict[str, np.ndarray] = {}

    def check(self) -> None:
        for name, mask in self.pruner.masks.items():
            assert not np.any(mask & ~self.before.get(name, mask)), "a weight came back"
        self.before = self.pruner.masks
        for (variable, _), mask in zip(
            self.pruner._attached, self.pruner._nested.masks, strict=False
        ):
            dead = keras.ops.convert_to_numpy(variable)[~mask]
            # As bits: a -0 would compress worse, and a NaN equals nothing.
            np.testing.assert_array_equal(dead.view(f"uint{8 * dead.itemsize}"), 0)

    def on_train_batch_end(self, batch, logs=None):
        self.check()
        self.seen.append(logs["sparsity"])

    def on_epoch_end(self, epoch, logs=None):
        self.check()


def fit(model, data, pruner, **options):
    """Sixteen steps an epoch; returns the sparsities logged after each batch."""
    watcher = ZerosStay(pruner)
    options = {"batch_size": 4, "epochs": 1, "shuffle": False, "verbose": 0} | options
    callbacks = [pruner, watcher, *options.pop("callbacks", [])]
    history = model.fit(*data, callbacks=callbacks, **options)
    assert history.history["sparsity"][-1] == watcher.seen[-1]
    return watcher.seen


def zeros(kernels) -> list[int]:
    return [int(np.count_nonzero(kernel == 0)) for kernel in kernels.values()]


SETTINGS = pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (lambda: optimizers.SGD(0.1, momentum=0.9), {}),
        (lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True), {"run_eagerly": True}),
        (lambda: optimizers.Adam(0.01), {"jit_compile": True}),
        (lambda: optimizers.Adam(0.01), {"steps_per_execution": 4}),
        (lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9), {}),
        (lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3), {}),
        (lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2), {"epochs": 2}),
        slow(lambda: optimizers.AdamW(0.01, weight_decay=0.1), {}),
        (lambda: optimizers.Adam(0.01, clipnorm=0.1), {}),
        slow(lambda: optimizers.Adam(0.01, global_clipnorm=0.1), {}),
        slow(lambda: optimizers.SGD(0.1, clipvalue=0.01), {}),
        (lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01), initial_scale=8.0), {}),
    ],
    ids=[
        "momentum",
        "eager",
        "jit",
        "spe",
        "ema",
        "ema-overwrite",
        "accumulate",
        "adamw",
        "clipnorm",
        "global-clipnorm",
        "clipvalue",
        "scaled",
    ],
)


@SETTINGS
def test_zeros_stay_and_the_schedule_arrives(compiled, data, kernels, optimizer, options):
    options = dict(options)
    epochs = options.pop("epochs", 1)
    model = compiled(optimizer(), jit_compile=options.pop("jit_compile", False), **options)
    pruner = PruneWeights(SCHEDULE)
    seen = fit(model, data, pruner, epochs=epochs)
    assert seen == sorted(seen)
    assert zeros(kernels(model)) == [36, 18]
    assert pruner.sparsity == seen[-1] == 0.75
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel != 0, pruner.masks[name])


CHOICES = [
    {"select": lambda value: value**2},
    {"pattern": "2:4"},
    {"pattern": (1, 4)},
    {"layers": {"last": 0.5}},
]


@pytest.mark.parametrize(
    "choice",
    [slow(CHOICES[0]), slow(CHOICES[1]), slow(CHOICES[2]), CHOICES[3]],
    ids=["function", "n:m", "blocks", "layers"],
)
def test_zeros_stay_however_masks_are_cut_and_the_same_seed_gives_the_same_numbers(
    compiled, data, kernels, choice
):
    weights = []
    for _ in range(2):
        optimizer = optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3)
        model = compiled(optimizer, steps_per_execution=2)
        fit(model, data, PruneWeights(SCHEDULE, **choice))
        weights.append(model.get_weights())
        # A row of the last kernel is one block, of 3 entries: 18 is 6 of them.
        assert zeros(kernels(model)) == ([36, 12] if "layers" in choice else [36, 18])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_zeros_stay_in_mixed_precision(make_model, data, kernels):
    model = make_model(dtype="mixed_float16")
    model.compile(optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(True))
    model.optimizer = optimizers.LossScaleOptimizer(model.optimizer, initial_scale=8.0)
    fit(model, data, PruneWeights(SCHEDULE))
    assert int(model.optimizer.inner_optimizer.iterations) == 16
    assert zeros(kernels(model)) == [36, 18]


def test_averages_swapped_in_at_the_end_of_an_epoch_are_masked(compiled, data, kernels, tmp_path):
    model = compiled(optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    pruner = PruneWeights(constant_sparsity(0.5))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model.fit(*data, epochs=2, verbose=0, callbacks=[swap, pruner, save])
    for saved in (tmp_path / "1.keras", tmp_path / "2.keras"):
        assert zeros(kernels(keras.saving.load_model(saved))) == [24, 12]
    assert zeros(kernels(model)) == [24, 12]


def test_the_last_step_is_one_the_schedule_can_end_on(compiled, data, kernels):
    # 16 steps: the state after the last update is step 16.
    with pytest.warns(UserWarning, match=r"frequency of 100 steps .* from 0 to 0\.5 in one cut"):
        fit(compiled(), data, PruneWeights(polynomial_decay(0.0, 0.5, 0, 16, frequency=100)))
    model = compiled()
    fit(model, data, PruneWeights(lambda step: (step == 16, 1.0), min_kept=0))
    assert zeros(kernels(model)) == [48, 24]


def test_the_first_step_trains_a_pruned_model(compiled, data):
    model = compiled()
    first = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: counts.append(
            [np.count_nonzero(w.numpy() == 0) for w in (model.weights[0], model.weights[2])]
        )
    )
    counts: list[list[int]] = []
    fit(model, data, PruneWeights(constant_sparsity(0.5)), callbacks=[first])
    assert counts == [[24, 12]] * 16


def test_a_global_scope_shares_the_sparsity_unevenly(compiled, data, kernels):
    model = compiled()
    model.get_layer("first").kernel.assign(model.get_layer("first").kernel * 0.01)
    fit(model, data, PruneWeights(constant_sparsity(0.5), scope="global"))
    first, last = zeros(kernels(model))
    assert first + last == 36
    assert last < 12


@pytest.mark.slow
def test_random_selection_follows_its_seed(compiled, data, kernels):
    patterns = []
    for seed in (1, 1, 2):
        model = compiled()
        fit(model, data, PruneWeights(constant_sparsity(0.5), select="random", seed=seed))
        assert zeros(kernels(model)) == [24, 12]
        patterns.append(kernels(model)["first/kernel"] == 0)
    np.testing.assert_array_equal(patterns[0], patterns[1])
    assert not np.array_equal(patterns[0], patterns[2])


def test_only_the_chosen_and_trainable_layers_are_pruned(compiled, data, kernels):
    model = compiled()
    fit(model, data, PruneWeights(constant_sparsity(0.5), exclude="last"))
    assert zeros(kernels(model)) == [24, 0]
    model = compiled()
    model.get_layer("first").trainable = False
    # 48 of 48 + 8 + 24 + 3.
    with pytest.warns(
        UserWarning, match="57.8% of the model's weights stay dense, 'first' is froz"
    ):
        fit(model, data, PruneWeights(constant_sparsity(0.5)))
    assert zeros(kernels(model)) == [0, 12]


def test_nested_models_and_shared_layers_are_pruned(data, kernels):
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="deep")], name="inner")
    shared = layers.Dense(6, name="shared")
    inputs = keras.Input((6,))
    outputs = layers.Dense(3, name="head")(shared(inner(shared(inputs))))
    model = keras.Model(inputs, outputs)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    fit(model, data, PruneWeights(SCHEDULE))
    found = kernels(model)
    assert dict(zip(found, zeros(found), strict=True)) == {
        "shared/kernel": 27,
        "inner/deep/kernel": 27,
        "head/kernel": 14,
    }


def test_a_constraint_of_the_layer_is_kept_and_restored(make_model, data, kernels):
    norm = keras.constraints.MaxNorm(0.3, axis=0)
    model = make_model(kernel_constraint=norm)
    model.compile(optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(True))
    fit(model, data, PruneWeights(SCHEDULE))
    kernel = kernels(model)["first/kernel"]
    assert zeros(kernels(model)) == [36, 18]
    assert np.linalg.norm(kernel, axis=0).max() <= 0.3 + 1e-5
    assert model.get_layer("first").kernel.constraint is norm


def test_a_model_traced_before_is_pruned_and_one_after_is_free(compiled, data, kernels):
    model = compiled(optimizers.SGD(0.1))
    model.fit(*data, verbose=0)
    start = int(model.optimizer.iterations)
    fit(model, data, PruneWeights(constant_sparsity(0.5, begin=start)))
    assert zeros(kernels(model)) == [24, 12]
    assert all(variable.constraint is None for variable in model.variables)
    model.fit(*data, verbose=0)
    assert sum(zeros(kernels(model))) < 10


def test_a_fit_with_the_same_sparsity_keeps_the_zeros_there_are(compiled, data, kernels):
    model = compiled(optimizers.SGD(0.1))
    fit(model, data, PruneWeights(constant_sparsity(0.5)))
    before = kernels(model)
    model.compile(optimizers.Adam(0.01), model.loss)
    fit(model, data, PruneWeights(constant_sparsity(0.5)))
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel == 0, before[name] == 0)
        assert not np.array_equal(kernel, before[name])


class StopError(Exception):
    pass


@pytest.mark.parametrize("same", [True, False], ids=["same pruner", "new pruner"])
def test_masks_left_by_an_interrupted_fit_are_taken_over(compiled, data, kernels, same):
    def stop(batch, logs):
        if batch == 8:
            raise StopError

    model = compiled()
    pruner = PruneWeights(SCHEDULE)
    with pytest.raises(StopError):
        fit(model, data, pruner, callbacks=[keras.callbacks.LambdaCallback(on_batch_end=stop)])
    left = [variable.constraint for variable, _ in pruner._attached]
    assert all(isinstance(constraint, MaskConstraint) for constraint in left)
    zero_then = {name: kernel == 0 for name, kernel in kernels(model).items()}

    again = pruner if same else PruneWeights(SCHEDULE)
    again.set_model(model)
    again.attach()
    assert len(again._attached) == 2
    assert all(variable.constraint.inner is None for variable, _ in again._attached)
    fit(model, data, again)
    for name, kernel in kernels(model).items():
        assert np.all(kernel[zero_then[name]] == 0)
    assert zeros(kernels(model)) == [36, 18]
    assert all(variable.constraint is None for variable in model.variables)


def test_a_pruner_lets_go_of_its_model_for_another(compiled):
    first, second = compiled(), compiled()
    pruner = PruneWeights(SCHEDULE)
    for model in (first, second):
        pruner.set_model(model)
        pruner.attach()
    assert all(variable.constraint is None for variable in first.variables)
    assert isinstance(second.weights[0].constraint, MaskConstraint)


def test_a_loop_of_ones_own(compiled, data, kernels):
    import tensorflow as tf

    model = compiled()
    optimizer = optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = model.loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    pruner = PruneWeights(SCHEDULE)
    pruner.set_model(model)
    with pruner:
        assert not pruner.update(0)
        changed = []
        for step in range(1, 17):
            train_step(data[0][:8], data[1][:8])
            if pruner.update(step):
                changed.append(step)
            for (_, mask), kernel in zip(
                pruner.masks.items(), kernels(model).values(), strict=False
            ):
                assert np.all(kernel[~mask] == 0)
    assert changed == [2, 5, 8, 11, 13]
    assert zeros(kernels(model)) == [36, 18]
    assert all(variable.constraint is None for variable in model.variables)


def test_train_on_batch_is_retraced(compiled, data, kernels):
    model = compiled()
    model.train_on_batch(*data)
    pruner = PruneWeights(constant_sparsity(0.5))
    pruner.set_model(model)
    with pruner:
        pruner.update(0)
        model.train_on_batch(*data)
        assert zeros(kernels(model)) == [24, 12]
    model.train_on_batch(*data)
    assert sum(zeros(kernels(model))) < 10


@pytest.mark.filterwarnings("ignore:PruneWeights. the (schedule|frequency|sparsity)")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    begin=st.integers(0, 30),
    length=st.integers(0, 40),
    frequency=st.integers(1, 50),
    execution=st.integers(1, 9),
    extra=st.integers(0, 5),
    target=st.floats(0, 0.99),
    scope=st.sampled_from(["layer", "global"]),
    select=st.sampled_from(["magnitude", "random"]),
    kept=st.integers(0, 3),
    killed=st.integers(0, 75),
    seed=st.integers(0, 99),
)
def test_schedule_arrives_masks_nest_and_a_killed_run_goes_on(
    make_model,
    begin,
    length,
    frequency,
    execution,
    extra,
    target,
    scope,
    select,
    kept,
    killed,
    seed,
):
    end = begin + length
    schedule = polynomial_decay(0.0, target, begin, end, frequency)
    model = MODELS.setdefault("model", make_model())
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))

    def attached() -> PruneWeights:
        pruner = PruneWeights(schedule, scope, select=select, min_kept=kept)
        pruner.set_model(model)
        pruner.attach()
        return pruner

    pruner, before = attached(), {}
    steps = range(0, end + extra + execution, execution)
    for step in steps:
        if step:
            for variable, constraint in pruner._attached:
                moved = variable + rng.normal(size=variable.shape).astype("float32")
                variable.assign(constraint(moved))
        pruner.update(step)
        for name, mask in pruner.masks.items():
            assert name not in before or not np.any(mask & ~before[name])
        before = pruner.masks
        if step >= killed:
            killed = 10**9
            # A process that was killed leaves its weights, and no constraint on them.
            pruner.detach()
            again = attached()
            again.update(step)
            assert again.masks.keys() == before.keys()
            for name, mask in again.masks.items():
                np.testing.assert_array_equal(mask, before[name])
            pruner = again
    pruner.detach()
    dead = {name: np.count_nonzero(~mask) for name, mask in pruner.masks.items()}
    if scope == "layer":
        assert list(dead.values()) == [min(round(target * n), n - kept) for n in (48, 24)]
    else:
        assert sum(dead.values()) == min(round(target * 72), 72 - 2 * kept)
    assert dead["first/kernel"] <= 48 - kept
    assert dead["last/kernel"] <= 24 - kept


MODELS: dict[str, keras.Model] = {}


def _said(warned) -> int:
    return sum(each.category is UserWarning for each in warned)


def test_a_schedule_that_does_not_arrive_is_told(compiled, data):
    schedule = polynomial_decay(0.0, 0.8, begin=0, end=100, frequency=4)
    told = r"will end at step 16, before the schedule arrives at step 100: sparsity will be 0\.326 "
    said: list[int] = []
    with pytest.warns(UserWarning, match=told) as warned:
        pruner = PruneWeights(schedule)
        count = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: said.append(_said(warned))
        )
        fit(compiled(), data, pruner, callbacks=[count])
    # Before the first batch, and only then.
    assert said == [1] * 16
    assert _said(warned) == 1
    # What was foretold came true.
    assert abs(pruner.sparsity - 0.326) < 1 / 72
    with pytest.warns(UserWarning, match=r"arrives at step 20: sparsity will be 0 of 0\.5"):
        fit(compiled(), data, PruneWeights(constant_sparsity(0.5, begin=20)))


def test_a_schedule_that_was_over_before_is_told(compiled, data, kernels):
    model = compiled()
    model.fit(*data, batch_size=4, verbose=0)
    with pytest.warns(UserWarning, match="at step 16 already, so the sparsity 0.75 due at step 13"):
        fit(model, data, PruneWeights(SCHEDULE))
    assert zeros(kernels(model)) == [36, 18]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": 0.5}, "the schedule is 0.5"),
        (
            {"schedule": SCHEDULE, "scope": "model"},
            "scope is 'model'; choose one of 'layer', 'global', 'erk'",
        ),
        ({"schedule": SCHEDULE, "select": "big"}, "choose 'magnitude' or 'random'"),
    ],
)
def test_a_wrong_argument_is_told_at_once(arguments, message):
    with pytest.raises(UsageError, match=message):
        PruneWeights(**arguments)


def test_a_target_that_is_no_share_is_told_at_once():
    def schedule(step):
        return True, 1.5

    schedule.end_step = 10
    with pytest.raises(UsageError, match="from 0 to 1"):
        PruneWeights(schedule)


def test_nothing_to_prune_is_told(compiled, data):
    pruner = PruneWeights(SCHEDULE)
    with pytest.raises(UsageError, match="set_model"):
        pruner.attach()
    pruner.set_model(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(UsageError, match="must be built"):
        pruner.attach()
    with pytest.raises(UsageError, match="attach"):
        pruner.update(0)
    model = compiled()
    model.trainable = False
    pruner.set_model(model)
    with pytest.raises(UsageError, match="trainable kernels"):
        pruner.attach()


def test_a_training_that_stops_before_the_schedule_arrives_is_told(compiled, data):
    def stop(batch, logs):
        model.stop_training = batch == 7

    model = compiled()
    stopping = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    with pytest.warns(UserWarning, match=r"ended at step 8, before .* step 13: sparsity is 0\.7"):
        fit(model, data, PruneWeights(SCHEDULE), callbacks=[stopping])


@pytest.mark.parametrize(
    ("pattern", "scope"),
    [(None, "global"), ((1, 4), "layer"), slow(None, "layer"), slow((1, 4), "global")],
)
def test_no_layer_dies_and_it_is_said_which_would_have(compiled, data, kernels, scope, pattern):
    model = compiled()
    model.get_layer("last").kernel.assign(1e-3 * model.get_layer("last").kernel)
    # Of 48 and 24 weights: in "first" one lives anyway.
    share = {"layer": 0.98, "global": 0.6}[scope]
    schedule = polynomial_decay(0.0, share, begin=0, end=8)
    with pytest.warns(UserWarning) as warned:
        pruner = PruneWeights(schedule, scope, pattern=pattern)
        model.fit(*data, batch_size=4, verbose=0, callbacks=[pruner])
    said = [str(each.message) for each in warned if each.category is UserWarning]
    assert len(said) == 1
    assert "PruneWeights: the sparsity would have left fewer than min_kept=1 weights" in said[0]
    assert "'last'" in said[0]
    alive = [int(np.count_nonzero(kernel)) for kernel in kernels(model).values()]
    assert all(alive)
    if scope == "global" and pattern is None:
        # Others died in place of the one that stayed.
        assert alive == [72 - round(0.6 * 72) - 1, 1]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (polynomial_decay(0.0, 0.5, 0, 10, frequency=10), "give frequency=1"),
        (polynomial_decay(0.1, 0.5, 4, 12, frequency=100), "goes from 0.1 to 0.5 in one cut"),
        (polynomial_decay(0.0, 0.5, 3, 3, frequency=1), "begins and ends at step 3"),
    ],
)
def test_a_ramp_that_is_one_cut_is_told_when_masks_are_attached(compiled, schedule, said):
    pruner = PruneWeights(schedule)
    pruner.set_model(compiled())
    with pytest.warns(UserWarning, match=f"^PruneWeights: the .*{said}"):
        pruner.attach()
    # Once, however often.
    pruner.attach()
    pruner.detach()

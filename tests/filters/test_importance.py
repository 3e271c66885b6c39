from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import plan
from tfprune.data import Examples
from tfprune.filters import IMPORTANCE, ChannelGroups, Criterion, channel_groups, scores
from tfprune.model.cloning import copy
from tfprune.vocabulary import IMPORTANCES

from .harness import randomised


@pytest.fixture
def model() -> keras.Model:
    return randomised(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.Conv2D(5, 3, name="next"),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
    )


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.normal(size=(90, 6, 6, 2)).astype(np.float32), rng.integers(0, 2, 90)


def test_importance_equals_its_formula(model: keras.Model) -> None:
    kernel, bias = (np.asarray(each, np.float64) for each in model.get_layer("next").weights)
    flat = kernel.reshape(-1, 5)
    wanted = {
        "l1": np.abs(flat).sum(0) + np.abs(bias),
        "l2": np.sqrt(np.square(flat).sum(0) + bias**2),
        "lasso": np.sqrt((np.square(flat).sum(0) + bias**2) / (36 + 1)),
    }
    groups = channel_groups(model)
    for name, values in wanted.items():
        found = IMPORTANCE[name].score(groups)[groups.producers["next"]]
        np.testing.assert_allclose(found, values, rtol=1e-6)


def test_coupled_layers_count_together() -> None:
    x = keras.Input((3,))
    y = layers.Add()([layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)])
    model = randomised(keras.Model(x, layers.Dense(2)(y)))
    groups = channel_groups(model)
    parts = [np.asarray(each) for name in "ab" for each in model.get_layer(name).weights]
    wanted = np.sqrt(sum(np.square(part.reshape(-1, 4)).sum(0) for part in parts))
    np.testing.assert_allclose(
        IMPORTANCE["l2"].score(groups)[groups.producers["a"]], wanted, rtol=1e-6
    )


def test_every_name_has_its_function() -> None:
    assert tuple(IMPORTANCE) == tuple(IMPORTANCES)


@pytest.mark.parametrize("name", IMPORTANCES)
def test_scores_compare_between_groups(
    model: keras.Model, data: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    """A layer's scale does not decide: each group's live scores have mean one."""
    kernel = model.get_layer("next").kernel
    # So little that no probability saturates, where gradients vanish.
    kernel.assign(np.asarray(kernel) * 10)
    groups = channel_groups(model)
    found = scores(groups, name, data)
    for group in groups:
        assert found[group.units].mean() == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name in IMPORTANCES if name != "random"])
def test_permuted_channels_have_permuted_scores(
    model: keras.Model, data: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    order = np.array([2, 0, 3, 1])
    twin = copy(model)
    for variable in [*twin.get_layer("conv").weights, *twin.get_layer("norm").weights]:
        variable.assign(np.asarray(variable)[..., order])
    reader = twin.get_layer("next").kernel
    reader.assign(np.asarray(reader)[:, :, order])
    before, after = channel_groups(model), channel_groups(twin)
    wanted = scores(before, name, data)[before.producers["conv"]][order]
    found = scores(after, name, data)[after.producers["conv"]]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_gamma_is_read_where_there_is_one_and_the_filter_where_not(model: keras.Model) -> None:
    groups = channel_groups(model)
    found = IMPORTANCE["bn_gamma"].score(groups)
    gamma = np.asarray(model.get_layer("norm").gamma)
    np.testing.assert_allclose(found[groups.producers["conv"]], np.abs(gamma))
    rest = groups.producers["next"]
    np.testing.assert_array_equal(found[rest], IMPORTANCE["l2"].score(groups)[rest])


def test_a_filter_that_others_repeat_goes_first(model: keras.Model) -> None:
    """The geometric median of five filters, three of them alike, is one of the three."""
    layer = model.get_layer("next")
    kernel = np.array(layer.kernel)
    kernel[..., 2] = kernel[..., 3] = kernel[..., 4]
    layer.kernel.assign(kernel)
    groups = channel_groups(model)
    units = groups.producers["next"]
    rows = kernel.reshape(-1, 5).T.astype(np.float64)
    wanted = np.linalg.norm(rows[:, None] - rows, axis=-1).sum(axis=1)
    found = IMPORTANCE["geometric_median"].score(groups)[units]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert set(np.argsort(found)[:3]) == {2, 3, 4}


class TestTaylor:
    """The first-order change of the loss, from gradients on labelled images."""

    def test_a_dead_unit_scores_zero_by_itself(
        self, model: keras.Model, data: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Unread, or silent: gradient or weight is zero."""
        reader, norm = model.get_layer("next").kernel, model.get_layer("norm")
        values = np.array(reader)
        values[:, :, 1] = 0
        reader.assign(values)
        for variable in (norm.gamma, norm.beta):
            variable.assign(np.asarray(variable) * [1, 1, 1, 0])
        groups = channel_groups(model)
        found = IMPORTANCE["taylor"].score(groups, Examples(*data))[groups.producers["conv"]]
        np.testing.assert_array_equal(found == 0, [False, True, False, True])

    def test_it_is_the_change_of_the_loss_by_a_small_step(
        self, model: keras.Model, data: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Of gamma and beta after the filters, of filter and bias where no BatchNorm follows."""
        images, labels = data[0][:40], data[1][:40]  # one batch

        def loss() -> float:
            logits = np.asarray(model(images, training=False), np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            chosen = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
            return float((np.log(np.exp(logits).sum(axis=1)) - chosen).mean())

        groups = channel_groups(model)
        found = IMPORTANCE["taylor"].score(groups, Examples(images, labels))
        step = 1e-2
        for path, scaled in (("conv", "norm"), ("next", "next")):
            for index in range(2):
                losses = []
                for factor in (1 + step, 1 - step):
                    before = model.get_weights()
                    for variable in model.get_layer(scaled).trainable_variables:
                        value = np.array(variable)
                        value[..., index] *= factor
                        variable.assign(value)
                    losses.append(loss())
                    model.set_weights(before)
                change = abs(losses[0] - losses[1]) / (2 * step)
                assert found[groups.producers[path][index]] == pytest.approx(change, rel=0.05)

    def test_a_softmax_at_the_end_changes_nothing(
        self, model: keras.Model, data: tuple[np.ndarray, np.ndarray]
    ) -> None:
        twin = copy(model)
        probable = keras.Model(twin.inputs, layers.Softmax()(twin.outputs[0]))
        wanted = scores(channel_groups(model), "taylor", data)
        groups = channel_groups(probable)
        found = scores(groups, "taylor", data)
        np.testing.assert_allclose(found, wanted, rtol=1e-3)

    def test_the_model_is_not_touched(
        self, model: keras.Model, data: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Neither its weights nor which layers train; those that do not score all the same."""
        groups = channel_groups(model)
        wanted, before = scores(groups, "taylor", data), model.get_weights()
        model.trainable = False
        np.testing.assert_array_equal(scores(groups, "taylor", data), wanted)
        assert not model.trainable_variables
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_penalties_do_not_count(self, data: tuple[np.ndarray, np.ndarray]) -> None:
        def built(penalty: str | None) -> keras.Model:
            conv = layers.Conv2D(4, 3, kernel_regularizer=penalty, activity_regularizer=penalty)
            ends = [layers.Dropout(0.5), layers.GlobalMaxPooling2D(), layers.Dense(2)]
            return randomised(keras.Sequential([keras.Input((6, 6, 2)), conv, *ends]))

        with_and_without = [
            scores(channel_groups(built(each)), "taylor", data) for each in ("l2", None)
        ]
        np.testing.assert_array_equal(*with_and_without)

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            ((4, 5, 5, 2), np.zeros(4, int), "example of shape (5, 5, 2) does not fit input "),
            ((4, 6, 6), np.zeros(4, int), "example of shape (6, 6) does not fit input "),
            (
                (4, 6, 6, 2),
                np.zeros(3, int),
                "parts of different lengths: give equally many examples",
            ),
            (
                (4, 6, 6, 2),
                np.zeros(4),
                "which is not compiled, is not known (the data has targets that are whole ",
            ),
            ((0, 6, 6, 2), np.zeros(0, int), "has no examples: give at least one"),
            ((4, 6, 6, 2), np.full(4, 2), "labels 2..2 do not fit the 2 classes of "),
        ],
    )
    def test_data_that_do_not_fit(
        self, model: keras.Model, images: tuple[int, ...], labels: np.ndarray, message: str
    ) -> None:
        with pytest.raises(tfprune.UsageError) as error:
            plan(model, macs=0.5, importance="taylor", data=(np.ones(images), labels))
        assert message in str(error.value)
        assert str(error.value).startswith("data")

    def test_data_that_are_missing(self, model: keras.Model) -> None:
        with pytest.raises(tfprune.UsageError) as error:
            plan(model, macs=0.5, importance="taylor")
        assert str(error.value) == (
            "importance 'taylor' needs labelled examples: give data=(x, y), or a dataset of batches"
        )


def test_dead_units_score_zero(model: keras.Model) -> None:
    reader = model.get_layer("next").kernel
    values = np.array(reader)
    values[:, :, 1] = 0
    reader.assign(values)
    groups = channel_groups(model)
    found = scores(groups, "l1")[groups.producers["conv"]]
    assert found[1] == 0
    assert (np.delete(found, 1) > 0).all()


def test_random_is_the_same_for_the_same_model(model: keras.Model) -> None:
    groups = channel_groups(model)
    np.testing.assert_array_equal(scores(groups, "random"), scores(groups, "random"))


def test_a_function_of_the_groups_decides(model: keras.Model) -> None:
    def last_is_best(groups: tfprune.filters.ChannelGroups) -> np.ndarray:
        return np.arange(1.0, groups.unit_count + 1)

    assert plan(model, filters=0.5, importance=last_is_best).removed["conv"] == [0, 1]


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (
            "l3",
            "unknown importance 'l3': choose one of l1, l2, lasso, bn_gamma, "
            "geometric_median, taylor, random",
        ),
        (
            lambda groups: np.ones(3),
            "importance gave an array of shape (3,): return one score a unit, (13,)",
        ),
        (
            lambda groups: np.full(13, np.nan),
            "importance gave 13 scores that are not finite numbers: look for NaN in the model's "
            "weights and the data",
        ),
    ],
)
def test_errors(model: keras.Model, importance: object, message: str) -> None:
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.slim(model, filters=0.5, importance=importance)
    assert str(error.value) == message


def kernel_maximum(groups: ChannelGroups) -> np.ndarray:
    """A toy importance: the largest weight of the filters of each unit."""
    maximum = np.zeros(groups.unit_count)
    for entry in groups.making("filter"):
        rows = np.moveaxis(np.abs(np.asarray(entry.variable)), entry.axis, 0)
        np.maximum.at(maximum, groups.unit[entry.ids], rows.reshape(len(rows), -1).max(axis=1))
    return maximum


def first_label(groups: ChannelGroups, data: Examples) -> np.ndarray:
    return np.arange(groups.unit_count) * float(data.targets[0] + 1)


def test_a_new_importance_takes_one_row(
    model: keras.Model, data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IMPORTANCE, "kernel_maximum", Criterion(kernel_maximum))
    monkeypatch.setitem(IMPORTANCE, "first_label", Criterion(first_label, needs_data=True))
    kernel = np.abs(np.asarray(model.get_layer("conv").kernel)).reshape(-1, 4).max(axis=0)
    bias = np.abs(np.asarray(model.get_layer("conv").bias))
    best = np.sort(np.argsort(-np.maximum(kernel, bias))[:2])
    slim = tfprune.slim(model, filters=0.5, importance="kernel_maximum")
    kept = np.asarray(model.get_layer("conv").bias)[best]
    np.testing.assert_array_equal(np.asarray(slim.get_layer("conv").bias), kept)
    groups = channel_groups(model)
    np.testing.assert_array_equal(scores(groups, "kernel_maximum"), scores(groups, kernel_maximum))
    slim = tfprune.slim(model, filters=0.5, importance="first_label", data=data)
    kept = np.asarray(model.get_layer("conv").bias)[2:]
    np.testing.assert_array_equal(np.asarray(slim.get_layer("conv").bias), kept)
    with pytest.raises(
        tfprune.UsageError, match="importance 'first_label' needs labelled examples"
    ):
        tfprune.slim(model, filters=0.5, importance="first_label")

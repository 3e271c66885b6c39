"""A model rebuilt from its config computes the same bits, with any functions and classes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfprune
from tests.filters.harness import assert_same, examples, outputs, randomised
from tests.tables import slow
from tests.versions import newer_keras
from tfprune.formats.source import finished
from tfprune.model.activations import is_pointwise
from tfprune.model.cloning import compile_like, config_of, copy, fresh_copy, from_config

NAMES = sorted(
    name
    for name, value in vars(keras.activations).items()
    # glu gives half of the channels, and threshold wants two numbers.
    if callable(value) and name not in ("get", "serialize", "deserialize", "glu", "threshold")
)


def own(name: str) -> Callable[[Any], Any]:
    """A function of one's own that is called like one of Keras'."""

    def function(x: Any) -> Any:
        return ops.clip(x, -0.3, 0.5)

    function.__name__ = function.__qualname__ = name
    return function


class Halved:
    """Called like a function, and nothing else."""

    def __call__(self, x: Any) -> Any:
        return x * 0.5

    def method(self, x: Any) -> Any:
        return x * 0.25


SPELLINGS: dict[str, Any] = {
    **{f"{name!r}": name for name in NAMES},
    **{
        f"{space.__name__}.{name}": getattr(space, name)
        for space, name in itertools.product((keras.activations, ops, ops.nn, tf.nn, tf), NAMES)
        if hasattr(space, name)
    },
    **{f"own {name}": own(name) for name in NAMES},
    "lambda": lambda x: ops.clip(x, 0.0, 0.5),
    "partial": functools.partial(keras.activations.leaky_relu, negative_slope=0.1),
    "partial of one's own": functools.partial(own("relu")),
    "object": Halved(),
    "method": Halved().method,
    "layer": layers.LeakyReLU(negative_slope=0.1),
}

Place = Callable[[Any], tuple[tuple[int, ...], list[layers.Layer]]]
PLACES: dict[str, Place] = {
    "Dense": lambda f: ((4,), [layers.Dense(6, activation=f)]),
    "Activation": lambda f: ((4,), [layers.Dense(6), layers.Activation(f)]),
    "Conv2D": lambda f: ((5, 5, 2), [layers.Conv2D(4, 3, activation=f)]),
    "Depthwise": lambda f: ((5, 5, 2), [layers.DepthwiseConv2D(3, activation=f)]),
    "Separable": lambda f: ((5, 5, 2), [layers.SeparableConv2D(4, 3, activation=f)]),
    "Transpose": lambda f: ((3, 3, 2), [layers.Conv2DTranspose(4, 3, activation=f)]),
    "EinsumDense": lambda f: ((4,), [layers.EinsumDense("ab,bc->ac", 6, activation=f)]),
    "SimpleRNN": lambda f: ((3, 2), [layers.SimpleRNN(4, activation=f)]),
    "GRU": lambda f: ((3, 2), [layers.GRU(4, activation=f, recurrent_activation=f)]),
    "LSTM in RNN": lambda f: ((3, 2), [layers.RNN(layers.LSTMCell(4, activation=f))]),
    "cells": lambda f: (
        (3, 2),
        [layers.RNN([layers.GRUCell(4, activation=f), layers.SimpleRNNCell(4, activation=f)])],
    ),
    "Bidirectional": lambda f: ((3, 2), [layers.Bidirectional(layers.LSTM(4, activation=f))]),
    "TimeDistributed": lambda f: (
        (3, 4),
        [layers.TimeDistributed(layers.Dense(4, activation=f)), layers.Flatten()],
    ),
    "ConvLSTM": lambda f: (
        (2, 4, 4, 1),
        [layers.ConvLSTM2D(2, 3, activation=f), layers.Flatten()],
    ),
    "nested": lambda f: (
        (4,),
        [keras.Sequential([keras.Input((4,)), layers.Dense(6, activation=f)])],
    ),
    "Lambda": lambda f: ((4,), [layers.Dense(6), layers.Lambda(keras.activations.get(f))]),
}
# Every spelling in one place, every place with many a spelling.
CASES = list(zip(SPELLINGS, itertools.cycle(PLACES))) + [
    (spelling, place) if spelling == "own relu" else slow(spelling, place)
    for spelling in ("own relu", "lambda", "partial", "object", "method", "keras.ops.gelu")
    for place in PLACES
    # Bidirectional copies the layer by Keras' own config as soon as it is made.
    if place != "Bidirectional" or spelling in ("own relu", "keras.ops.gelu")
]


@pytest.mark.reliability("activations in every spelling and place", "right")
@pytest.mark.parametrize(("spelling", "place"), CASES)
def test_the_same_bits_whatever_the_activation_is(spelling: str, place: str) -> None:
    shape, parts = PLACES[place](SPELLINGS[spelling])
    model = randomised(keras.Sequential([keras.Input(shape), *parts, layers.Dense(2)]))
    inputs = examples(model)
    wanted = outputs(model, inputs)
    assert_same(outputs(tfprune.remove_filters(model, {}), inputs), wanted)
    assert_same(outputs(model, inputs), wanted)


@pytest.mark.parametrize("spelling", ["keras.ops.gelu", "own tanh", "lambda", "partial", "method"])
def test_what_is_exported_computes_the_same_bits(spelling: str) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation=SPELLINGS[spelling])])
    inputs = examples(randomised(model))
    assert_same(outputs(finished(model), inputs), outputs(model, inputs))


@pytest.mark.parametrize("spelling", [s for s in SPELLINGS if is_pointwise(SPELLINGS[s])][::3])
def test_a_slim_model_keeps_its_functions(spelling: str) -> None:
    function = SPELLINGS[spelling]
    model = randomised(
        keras.Sequential(
            [keras.Input((4,)), layers.Dense(6, activation=function, name="a"), layers.Dense(2)]
        )
    )
    slim = tfprune.slim(model, filters=0.5)
    assert slim.get_layer("a").units == 3
    assert slim.get_layer("a").activation is model.get_layer("a").activation or isinstance(
        function, layers.Layer
    )


class L2(keras.regularizers.Regularizer):
    """Called like Keras' own, and something else."""

    def __call__(self, x: Any) -> Any:
        return ops.sum(ops.abs(x))

    def get_config(self) -> dict[str, Any]:
        return {}


class Ones(keras.initializers.Initializer):
    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return 7 * ops.ones(shape, dtype)


def ones(shape: Any, dtype: Any = None) -> Any:
    return 3 * ops.ones(shape, dtype)


def non_neg(weight: Any) -> Any:
    return ops.minimum(weight, 0)


class Own(layers.Layer):
    """Holds functions in a container."""

    def __init__(self, functions: Any, mode: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.functions = functions
        self.mode = mode
        # One that it makes for itself.
        self.scaled = lambda x: x * self.mode

    def call(self, x: Any) -> Any:
        for function in self.functions:
            x = function(x)
        return self.scaled(x)

    def get_config(self) -> dict[str, Any]:
        functions = keras.saving.serialize_keras_object(list(self.functions))
        return {**super().get_config(), "functions": functions, "mode": self.mode}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Own:
        functions = keras.saving.deserialize_keras_object(config.pop("functions"))
        return cls(functions, **config)


class Swapping(Own):
    """Comes back with another function than it was given."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Swapping:
        return cls([ops.tanh, ops.tanh], config["mode"], name=config["name"])


class Renaming(layers.Layer):
    def call(self, x: Any) -> Any:
        return 2 * x

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Renaming:
        return cls()


@newer_keras("functions are no constraints")
@pytest.mark.reliability("functions and classes that models hold", "right")
def test_initializers_regularizers_and_constraints_are_those_at_hand() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(
                3,
                kernel_regularizer=L2(),
                kernel_initializer=Ones(),
                bias_initializer=ones,
                kernel_constraint=non_neg,
                activity_regularizer=L2(),
            ),
        ]
    )
    twin = from_config(model, config_of(model))
    old, new = model.layers[0], twin.layers[0]
    assert type(new.kernel_regularizer) is type(new.activity_regularizer) is L2
    assert type(new.kernel_initializer) is Ones
    assert new.bias_initializer is ones
    assert new.kernel_constraint is non_neg
    assert_same(twin.get_weights(), [np.full((4, 3), 7.0), np.full(3, 3.0)])
    assert float(twin.losses[0]) == float(model.losses[0]) == 84
    assert old.kernel_constraint is non_neg


@pytest.mark.reliability("functions and classes that models hold", "right")
@pytest.mark.parametrize("container", [list, tuple])
def test_functions_in_containers_and_closures_over_the_layer(container: type) -> None:
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), Own(container([own("relu"), ops.gelu]), 2.0)]
    )
    twin, inputs = copy(model), examples(model)
    assert_same(outputs(twin, inputs), outputs(model, inputs))
    # The closure is the twin's own.
    twin.layers[1].mode = 4.0
    assert_same(outputs(twin, inputs), [2 * outputs(model, inputs)[0]])
    assert type(model.layers[1].functions[0]) is type(own("relu"))


@pytest.mark.reliability("functions and classes that models hold", "refused")
def test_a_layer_that_swaps_its_function_is_refused() -> None:
    model = keras.Sequential([keras.Input((4,)), Swapping([own("relu"), ops.tanh], 1.0, name="s")])
    with pytest.raises(tfprune.UsageError, match=r"layer 's' holds .*relu as 'functions\[0\]'"):
        copy(model)


@pytest.mark.reliability("functions and classes that models hold", "right")
def test_a_layer_that_forgets_its_name_gets_it_back() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), Renaming(name="r"), layers.Dense(3, name="d"), Renaming(name="s")]
    )
    twin, inputs = copy(randomised(model)), examples(model)
    assert [layer.name for layer in twin.layers] == ["r", "d", "s"]
    assert_same(outputs(twin, inputs), outputs(model, inputs))


class Unnamed(layers.Layer):
    """Its constructor takes any keyword argument, so its config has no name."""

    def __init__(layer, **kwargs: Any) -> None:  # noqa: N805
        super().__init__(**kwargs)

    def call(self, x: Any) -> Any:
        return 2 * x


@pytest.mark.reliability("functions and classes that models hold", "right")
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_layers_whose_config_has_no_name(kind: str) -> None:
    x = keras.Input((4,))
    parts = [layers.Dense(3, name="a"), Unnamed(name="u"), layers.Dense(2, name="b")]
    if kind == "sequential":
        model: keras.Model = keras.Sequential([keras.Input((4,)), *parts])
    else:
        model = keras.Model(x, parts[2](parts[1](parts[0](x))))
    inputs = examples(randomised(model))
    twin = copy(model)
    assert_same(outputs(twin, inputs), outputs(model, inputs))
    assert twin.get_layer("u").name == "u"


class WithModels(layers.Layer):
    """Holds models whose layers are named by count."""

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation
        self.parts = {
            "a": keras.Sequential([keras.Input((4,)), layers.Dense(4, activation=activation)])
        }

    def call(self, x: Any) -> Any:
        return self.parts["a"](x)

    def get_config(self) -> dict[str, Any]:
        activation = keras.saving.serialize_keras_object(self.activation)
        return {**super().get_config(), "activation": activation}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WithModels:
        activation = keras.saving.deserialize_keras_object(config.pop("activation"))
        return cls(activation, **config)


class WithClass(layers.Layer):
    """Was given a class, and says so in its config."""

    def __init__(self, norm: type = layers.LayerNormalization, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm_class = norm
        self.norm = norm()

    def build(self, shape: Any) -> None:
        self.norm.build(shape)

    def call(self, x: Any) -> Any:
        return self.norm(x)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "norm": keras.saving.serialize_keras_object(self.norm_class),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WithClass:
        return cls(keras.saving.deserialize_keras_object(config.pop("norm")), **config)


class Misremembering(layers.Layer):
    """Its config does not fit its constructor, whose arguments Keras recorded."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def call(self, x: Any) -> Any:
        return self.size * x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sizes": [self.size]}


@pytest.mark.reliability("functions and classes that models hold", "right")
@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(
            WithClass(name="c"), marks=newer_keras("from_config may not change its config")
        ),
        Misremembering(3, name="m"),
    ],
)
def test_classes_and_recorded_arguments(layer: layers.Layer) -> None:
    model = randomised(keras.Sequential([keras.Input((4,)), layer, layers.Dense(2)]))
    inputs = examples(model)
    assert_same(outputs(copy(model), inputs), outputs(model, inputs))
    assert copy(model).layers[0].name == layer.name


@pytest.mark.reliability("models of unusual classes and shapes", "right")
def test_models_within_a_layer() -> None:
    model = keras.Sequential([keras.Input((4,)), WithModels(own("relu"), name="w")])
    inputs = examples(randomised(model))
    assert_same(outputs(copy(model), inputs), outputs(model, inputs))


@keras.saving.register_keras_serializable("tests")
class Forgetful(layers.Layer):
    """Its config lacks the argument of its constructor, an array."""

    def __init__(self, size: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        return {}


@keras.saving.register_keras_serializable("tests")
class Failing(Forgetful):
    def get_config(self) -> dict[str, Any]:
        raise AttributeError("'Failing' object has no attribute 'size'")


@pytest.mark.reliability("functions and classes that models hold", "refused")
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Forgetful, "cannot be rebuilt from its config .*missing 1 required"),
        (Failing, "no config to rebuild it from .*no attribute 'size'"),
    ],
)
def test_layers_without_a_whole_config_are_refused(layer: type, message: str) -> None:
    model = keras.Sequential([keras.Input((4,)), layer(np.ones(3)), layers.Dense(2)])
    with pytest.raises(tfprune.UsageError, match=message) as error:
        copy(model)
    assert "\n" not in str(error.value)


@pytest.mark.reliability("functions and classes that models hold", "right")
def test_compiled_objects_are_those_at_hand() -> None:
    class ExponentialDecay(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return ops.convert_to_tensor(0.125)

        def get_config(self) -> dict[str, Any]:
            return {}

    def mean_squared_error(y: Any, z: Any) -> Any:
        return ops.mean(y * 0 + z * 0 + 5.0, axis=-1)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile(
        keras.optimizers.Adam(ExponentialDecay()),
        mean_squared_error,
        metrics=[keras.metrics.MeanMetricWrapper(mean_squared_error, name="mine")],
    )
    twin = copy(model)
    compile_like(model, twin)
    assert float(twin.optimizer.learning_rate) == 0.125
    assert twin.optimizer is not model.optimizer
    x, y = np.ones((4, 4), np.float32), np.ones((4, 2), np.float32)
    assert twin.evaluate(x, y, verbose=0, return_dict=True) == {"loss": 5.0, "mine": 5.0}
    twin.fit(x, y, verbose=0)


class Backbone(keras.Model):
    """As keras_hub's: functional, with an `__init__` and a config of its own."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        image = keras.Input((6, 6, 3), name="pixels")
        x = layers.Conv2D(width, 3, activation=ops.gelu, name="first")(image)
        maps = layers.Conv2D(width, 3, name="second")(x)
        super().__init__(inputs={"pixels": image}, outputs={"low": x, "high": maps}, **kwargs)
        self.width = width

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width, "name": self.name}


class Task(keras.Model):
    def __init__(self, backbone: keras.Model, **kwargs: Any) -> None:
        x = layers.GlobalAveragePooling2D()(backbone(backbone.input)["high"])
        super().__init__(backbone.input, layers.Dense(2, name="head")(x), **kwargs)
        self.backbone = backbone


@pytest.mark.reliability("models of unusual classes and shapes", "right")
def test_models_with_an_init_of_their_own_come_back_as_functional_ones() -> None:
    task = Task(Backbone(4, name="backbone"), name="task")
    for layer in task.backbone.layers[1:]:
        layer.kernel.assign(np.random.default_rng(0).normal(size=layer.kernel.shape))
    x = {"pixels": np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype("float32")}
    twin = copy(task)
    assert type(twin) is type(keras.Model(task.inputs, task.outputs))
    assert twin.name == "task"
    assert_same([twin(x)], [task(x)])
    slim = tfprune.remove_filters(task, {"backbone/first": [0], "backbone/second": [1, 2]})
    assert slim.get_layer("backbone").get_layer("second").kernel.shape == (3, 3, 3, 2)
    assert slim.get_layer("backbone")(x)["high"].shape[-1] == 2
    # The original still answers for itself.
    assert task.backbone.get_config() == {"width": 4, "name": "backbone"}


@pytest.mark.reliability("models of unusual classes and shapes", "right")
def test_a_sequential_with_an_init_of_its_own() -> None:
    class Small(keras.Sequential):
        def __init__(self, units: int) -> None:
            super().__init__([keras.Input((4,)), layers.Dense(units), layers.Dense(2)])

    model = Small(6)
    inputs = examples(model)
    assert_same(outputs(copy(model), inputs), outputs(model, inputs))


@newer_keras("weights outside the graph are not among those of the model")
@pytest.mark.reliability("models of unusual classes and shapes", "refused")
def test_weights_outside_the_graph_are_refused() -> None:
    class Extra(Task):
        def __init__(self, backbone: keras.Model) -> None:
            super().__init__(backbone, name="extra")
            self.extra = layers.Dense(3, name="aside")
            self.extra.build((None, 2))

    with pytest.raises(tfprune.UsageError, match="'extra' has weights outside its graph, such as"):
        copy(Extra(Backbone(4)))


@pytest.mark.reliability("models of unusual classes and shapes", "refused")
def test_a_call_of_its_own_is_no_graph() -> None:
    class Doubled(keras.Model):
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    x = keras.Input((4,))
    model = Doubled(x, layers.Dense(3)(x), name="twice")
    with pytest.raises(tfprune.UsageError, match="'twice' is a Doubled, whose own `call`"):
        tfprune.channel_groups(model)
    outer = keras.Model(x, layers.Dense(2)(model(layers.Dense(4, name="before")(x))))
    assert "before" in tfprune.channel_groups(outer).frozen


@pytest.mark.reliability("models of unusual classes and shapes", "refused")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: keras.Sequential(name="empty"), "'empty' is not built"),
        (lambda: keras.Sequential([layers.Dense(2)], name="open"), "'open' is not built"),
    ],
)
def test_models_that_are_not_built_say_what_to_do(
    model: Callable[[], keras.Model], message: str
) -> None:
    for attempt in (tfprune.channel_groups, copy, lambda m: tfprune.slim(m, filters=0.5)):
        with pytest.raises(tfprune.UsageError, match=message):
            attempt(model())


def identity() -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, x)


def through() -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, [layers.Dense(2)(x), x])


@pytest.mark.reliability("models of unusual classes and shapes", "right")
@pytest.mark.parametrize(
    "model",
    [pytest.param(identity, marks=newer_keras("a model needs an operation")), through],
)
def test_models_that_return_an_input(model: Callable[[], keras.Model]) -> None:
    made = model()
    inputs = examples(made)
    assert_same(outputs(tfprune.remove_filters(made, {}), inputs), outputs(made, inputs))


def test_a_metric_may_be_called_like_its_registered_function():
    def within_one(true, predicted):
        return keras.ops.cast(keras.ops.abs(true - predicted) < 1, "float32")

    metric = keras.metrics.MeanMetricWrapper(within_one, name="within_one")
    with keras.saving.custom_object_scope({"within_one": within_one}):
        twin = fresh_copy(metric)
    assert (twin.name, twin._fn) == ("within_one", within_one)
    assert twin is not metric

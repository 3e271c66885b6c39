"""What a pruned model is rewound to, and the controls: weights and masks drawn by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.model import cloning, graph
from tfprune.weights.masks import masked
from tfprune.weights.selection import prunable


def rewind(model: keras.Model, origin: keras.Model) -> keras.Model:
    """Gives a pruned model the weights of an earlier one, where they live.

    Example:
        ```python
        ticket = rewind(prune_once(trained, 0.2), untrained)
        ```

    Weight rewinding (Frankle et al. 2020, https://arxiv.org/abs/1912.05671): what is zero in a
    prunable weight stays zero, all other variables, biases and BatchNorm's statistics included,
    are those of `origin`.

    Args:
        model: a pruned model.
        origin: a model of the same shapes: at initialisation, or early in its training.

    Returns:
        A new model.

    Raises:
        UsageError: the shapes differ.
    """
    twin = cloning.copy(model)
    if [v.shape for v in twin.variables] != [v.shape for v in origin.variables]:
        raise UsageError(
            f"{model.name} cannot be rewound to {origin.name}: their weights have other shapes"
        )
    masks = {
        id(variable): keras.ops.convert_to_numpy(variable) != 0 for _, variable in prunable(twin)
    }
    for variable, early in zip(twin.variables, origin.variables, strict=True):
        value = keras.ops.convert_to_numpy(early)
        mask = masks.get(id(variable))
        variable.assign(value if mask is None else masked(value, mask))
    return twin


def reinitialize(model: keras.Model, seed: int) -> keras.Model:
    """Makes a model of the same architecture with initial weights of its own.

    Example:
        ```python
        scratch = reinitialize(slim, seed=1)
        ```

    The random reinitialisation of Frankle & Carbin 2019 under `rewind`, and of a slim model the
    training from scratch that Liu et al. 2019 (https://arxiv.org/abs/1810.05270) compare with.

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        seed: of the new weights, each from the initializer of its layer.

    Returns:
        A new model; what a Normalization layer knows of the data is kept.

    Raises:
        UsageError: the model is one that no config can make again.
    """
    made = cloning.config_of(model)
    for index, initializer in enumerate(_random_initializers(made.config)):
        state = np.random.SeedSequence([seed, index]).generate_state(1)
        initializer["seed"] = int(state[0] >> 1)
    twin = cloning.from_config(model, made)
    layers = zip(graph.named_layers(model).values(), graph.named_layers(twin).values(), strict=True)
    for old, new in layers:
        if isinstance(old, keras.layers.Normalization):
            new.set_weights(old.get_weights())
    graph.finalize_states(twin)
    return twin


def _random_initializers(config: Any) -> Iterator[dict[str, Any]]:
    """The configs of all initializers within a config that draw."""
    if isinstance(config, dict):
        if config.get("module") == "keras.initializers" and "seed" in config["config"]:
            yield config["config"]
        config = config.values()
    elif not isinstance(config, list | tuple):
        return
    for inner in config:
        yield from _random_initializers(inner)


def shuffle_arrays(arrays: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Puts the entries of each array in another order.

    Of masks, this is a random control of equal density in each tensor. Masks that nest still do:
    the same seed moves the same places.

    Args:
        arrays: of any shapes.
        seed: of the order, at least 0.

    Returns:
        New arrays of the same shapes.
    """
    return [
        np.random.default_rng((seed, place)).permutation(array.ravel()).reshape(array.shape)
        for place, array in enumerate(arrays)
    ]


def shuffle_weights(model: keras.Model, seed: int) -> keras.Model:
    """Makes a model whose prunable weights, and so zeros, changed places within their tensors.

    Example:
        ```python
        control = rewind(shuffle_weights(pruned, seed=1), untrained)
        ```

    Args:
        model: a pruned model; it is not changed.
        seed: of the places, at least 0.

    Returns:
        A new model.
    """
    twin = cloning.copy(model)
    variables = [variable for _, variable in prunable(twin)]
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    for variable, value in zip(variables, shuffle_arrays(values, seed), strict=True):
        variable.assign(value)
    return twin


def control_seed(seed: int) -> int:
    """The seed of a control's weights, which are those of no other model of a study.

    Args:
        seed: of the study; these are small.
    """
    return seed + 1_000_003


def untrained_control(
    model: keras.Model, method: Literal["reinit", "random"], seed: int
) -> keras.Model:
    """Makes what a pruned model is compared with, before it is trained.

    Example:
        ```python
        control = untrained_control(pruned, "reinit", seed=0)
        ```

    Args:
        model: a pruned model; its zeros are its masks.
        method: "reinit", its masks over weights drawn anew; "random", masks of as many weights in
            each tensor, drawn, over weights drawn anew.
        seed: of the study.

    Returns:
        A new model.
    """
    own = control_seed(seed)
    masks = shuffle_weights(model, own) if method == "random" else model
    return rewind(masks, reinitialize(masks, own))
